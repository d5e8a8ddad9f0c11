package history

import (
	"strings"
	"testing"
	"time"
)

func TestAdviceFitsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	week := 7 * 24 * time.Hour
	for _, c := range []struct {
		name        string
		facts       Facts
		cpu, memory float64
		confidence  [2]Confidence
		risks       [2]Risk
		reasons     [2]string
	}{
		{
			name: "without limits", facts: Facts{Span: week, CPU: &Quantiles{0.1, 0.4, 0.5, 2}, Memory: &Quantiles{50 * mib, 90 * mib, 95 * mib, 100 * mib}},
			cpu: 0.6, memory: 120 * mib, confidence: [2]Confidence{High, High}, risks: [2]Risk{RiskNone, RiskNone},
			reasons: [2]string{"p99 of 0.50 cores over 7 days", "highest use of 100.0 MiB over 7 days"},
		},
		{
			name:  "held down by both limits",
			facts: Facts{Span: week, CPU: &Quantiles{0.2, 0.2, 0.2, 0.2}, CPULimit: 0.2, Throttled: 0.9, Memory: &Quantiles{60 * mib, 62 * mib, 63 * mib, 64 * mib}, MemoryLimit: 64 * mib, OOMKills: 3},
			cpu:   0.3, memory: 96 * mib, confidence: [2]Confidence{Medium, Medium}, risks: [2]Risk{RiskHigh, RiskHigh},
			reasons: [2]string{"stopped in 90% of its periods", "3 killed for want of memory"},
		},
		{
			name:  "far too large, and seen for an hour",
			facts: Facts{Span: time.Hour, CPU: &Quantiles{0, 0, 0, 0}, CPULimit: 4, Memory: &Quantiles{mib, mib, mib, mib}, MemoryLimit: 4096 * mib},
			cpu:   0.05, memory: 8 * mib, confidence: [2]Confidence{Low, Low}, risks: [2]Risk{RiskLow, RiskLow},
			reasons: [2]string{"over 60 minutes, plus 20%; less is never suggested", "over 60 minutes, plus 20%; less is never suggested"},
		},
		{
			name:  "a pod that asks for more than it uses, seen for a moment",
			facts: Facts{Who: Who{Pod: "web-0"}, Span: 50 * time.Second, CPU: &Quantiles{0.1, 0.1, 0.1, 0.1}, CPURequest: 0.5, Memory: &Quantiles{mib, mib, mib, 20 * mib}, MemoryRequest: 64 * mib},
			cpu:   0.15, memory: 24 * mib, confidence: [2]Confidence{Low, Low}, risks: [2]Risk{RiskNone, RiskNone},
			reasons: [2]string{"over 50 seconds, plus 20%; its request of 0.50 has to come down", "its request of 64.0 MiB has to come down"},
		},
		{
			name:  "near both limits",
			facts: Facts{Span: 24 * time.Hour, CPU: &Quantiles{0.5, 0.9, 0.9, 1}, CPULimit: 1, Memory: &Quantiles{mib, mib, mib, 90 * mib}, MemoryLimit: 100 * mib},
			cpu:   1.1, memory: 108 * mib, confidence: [2]Confidence{Medium, Medium}, risks: [2]Risk{RiskMedium, RiskMedium},
			reasons: [2]string{"over 24 hours", "over 24 hours"},
		},
	} {
		a := Advise(c.facts, 0.2)
		if a.CPUSuggestion.Limit != c.cpu || a.MemorySuggestion.Limit != c.memory {
			t.Errorf("%s: limits %v and %v, want %v and %v", c.name, a.CPUSuggestion.Limit, a.MemorySuggestion.Limit, c.cpu, c.memory)
		}
		if got := [2]Confidence{a.CPUSuggestion.Confidence, a.MemorySuggestion.Confidence}; got != c.confidence {
			t.Errorf("%s: confidence %v, want %v", c.name, got, c.confidence)
		}
		if got := [2]Risk{a.ThrottleRisk, a.OOMRisk}; got != c.risks {
			t.Errorf("%s: risks %v, want %v", c.name, got, c.risks)
		}
		if !strings.Contains(a.CPUSuggestion.Reason, c.reasons[0]) || !strings.Contains(a.MemorySuggestion.Reason, c.reasons[1]) {
			t.Errorf("%s: reasons %q and %q", c.name, a.CPUSuggestion.Reason, a.MemorySuggestion.Reason)
		}
	}
}

func TestNothingIsAdvisedWhereNothingWasMeasured(t *testing.T) {
	t.Parallel()
	if a := Advise(Facts{}, 0.2); a.CPUSuggestion != nil || a.MemorySuggestion != nil {
		t.Errorf("%+v", a)
	}
}
