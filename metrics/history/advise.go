package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Quantiles are those of a distribution.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Facts are what an advice is made from.
type Facts struct {
	Who
	Samples int           `json:"samples"`
	Span    time.Duration `json:"-"` // from the first sample to the last
	First   time.Time     `json:"first"`
	Last    time.Time     `json:"last"`

	CPU    *Quantiles `json:"cpu_cores,omitempty"`    // means of each interval
	Memory *Quantiles `json:"memory_bytes,omitempty"` // working set

	CPULimit      float64 `json:"cpu_limit_cores,omitempty"`
	CPURequest    float64 `json:"cpu_request_cores,omitempty"`
	MemoryLimit   uint64  `json:"memory_limit_bytes,omitempty"`
	MemoryRequest uint64  `json:"memory_request_bytes,omitempty"`

	// Throttled is the share of CPU periods in which the container was stopped by its limit.
	Throttled float64 `json:"throttled_ratio"`
	OOMKills  uint64  `json:"oom_kills"`
}

func (p *Profile) facts() Facts {
	f := Facts{
		Who: p.Who, Samples: p.Samples, Span: p.Last.Sub(p.First), First: p.First, Last: p.Last, CPU: p.CPU.quantiles(), Memory: p.Memory.quantiles(),
		CPULimit: p.CPULimit, CPURequest: p.CPURequest, MemoryLimit: p.MemoryLimit, MemoryRequest: p.MemoryRequest, OOMKills: p.OOMKills,
	}
	if p.Periods > 0 {
		f.Throttled = float64(p.ThrottledPeriods) / float64(p.Periods)
	}
	return f
}

// Confidence says how far an advice can be trusted.
type Confidence string

// The confidences.
const (
	Low    Confidence = "low"    // less than six hours were seen
	Medium Confidence = "medium" // less than three days, or the limit itself held the use down
	High   Confidence = "high"
)

// Value is c as a number: 0.2, 0.6 or 0.9.
func (c Confidence) Value() float64 {
	return map[Confidence]float64{Low: 0.2, Medium: 0.6, High: 0.9}[c]
}

// Risk says how likely something bad is, as far as was seen.
type Risk string

// The risks.
const (
	RiskNone   Risk = "none" // there is no limit
	RiskLow    Risk = "low"
	RiskMedium Risk = "medium"
	RiskHigh   Risk = "high"
)

// Suggestion is one suggested limit.
type Suggestion struct {
	Limit      float64    `json:"limit"` // cores or bytes
	Reason     string     `json:"reason"`
	Confidence Confidence `json:"confidence"`
}

// Advice is what was measured of a container, and which limits would fit it.
type Advice struct {
	Facts
	CPUSuggestion    *Suggestion `json:"cpu_suggestion,omitempty"`
	MemorySuggestion *Suggestion `json:"memory_suggestion,omitempty"`
	ThrottleRisk     Risk        `json:"throttle_risk"`
	OOMRisk          Risk        `json:"oom_risk"`
}

// Advise decides which limits fit what was measured, with so much headroom above it: 0.2 is a fifth.
func Advise(f Facts, headroom float64) Advice {
	a := Advice{Facts: f, ThrottleRisk: throttleRisk(f), OOMRisk: oomRisk(f)}
	if f.CPU != nil {
		a.CPUSuggestion = suggestCPU(f, headroom)
	}
	if f.Memory != nil {
		a.MemorySuggestion = suggestMemory(f, headroom)
	}
	return a
}

const (
	throttledLittle = 0.01
	throttledMuch   = 0.10
	nearLimit       = 0.85
	atLimit         = 0.95
)

func throttleRisk(f Facts) Risk {
	switch {
	case f.CPULimit == 0:
		return RiskNone
	case f.Throttled >= throttledMuch:
		return RiskHigh
	case f.Throttled >= throttledLittle || f.CPU != nil && f.CPU.P95 >= nearLimit*f.CPULimit:
		return RiskMedium
	}
	return RiskLow
}

func oomRisk(f Facts) Risk {
	limit := float64(f.MemoryLimit)
	switch {
	case f.OOMKills > 0:
		return RiskHigh
	case limit == 0:
		return RiskNone
	case f.Memory != nil && f.Memory.Max >= atLimit*limit:
		return RiskHigh
	case f.Memory != nil && f.Memory.Max >= nearLimit*limit:
		return RiskMedium
	}
	return RiskLow
}

// suggestCPU takes the 99th percentile: a rare minute above it is slowed down, not killed. What a limit held down was
// not measured, so then the limit grows by half.
func suggestCPU(f Facts, headroom float64) *Suggestion {
	const step, least = 0.05, 0.05
	need := f.CPU.P99 * (1 + headroom)
	s := &Suggestion{Confidence: confidence(f.Span), Reason: fmt.Sprintf("p99 of %.2f cores over %s, plus %s", f.CPU.P99, span(f.Span), percent(headroom))}
	if f.CPULimit > 0 && f.Throttled >= throttledLittle {
		if held := f.CPULimit * 1.5; f.Throttled >= throttledMuch && held > need {
			need = held
			s.Reason = fmt.Sprintf("stopped in %.0f%% of its periods: what it would use is more than was measured, so half more than its limit of %.2f", f.Throttled*100, f.CPULimit)
		} else {
			s.Reason += fmt.Sprintf("; stopped in %.0f%% of its periods", f.Throttled*100)
		}
		s.Confidence = atMost(s.Confidence, Medium)
	}
	s.Limit = max(least, math.Round(math.Ceil(need/step-1e-9)*step*100)/100)
	if need < least {
		s.Reason += "; less is never suggested"
	}
	if f.Pod != "" && f.CPURequest > s.Limit { // elsewhere a request is a weight, which no limit bounds
		s.Reason += fmt.Sprintf("; its request of %.2f has to come down with it", f.CPURequest)
	}
	return s
}

// suggestMemory takes the maximum: whoever goes beyond a memory limit is killed.
func suggestMemory(f Facts, headroom float64) *Suggestion {
	const step, least = 4 << 20, 8 << 20 // Docker takes no limit below 6 MiB, and runc needs some to start with
	need := f.Memory.Max * (1 + headroom)
	s := &Suggestion{Confidence: confidence(f.Span), Reason: fmt.Sprintf("highest use of %s over %s, plus %s", mebi(f.Memory.Max), span(f.Span), percent(headroom))}
	switch limit := float64(f.MemoryLimit); {
	case f.OOMKills > 0 && limit*1.5 > need:
		need = limit * 1.5
		s.Reason = fmt.Sprintf("%d killed for want of memory: what it would use is more than was measured, so half more than its limit of %s", f.OOMKills, mebi(limit))
		s.Confidence = atMost(s.Confidence, Medium)
	case f.OOMKills > 0:
		s.Reason += fmt.Sprintf("; %d killed for want of memory", f.OOMKills)
		s.Confidence = atMost(s.Confidence, Medium)
	case limit > 0 && f.Memory.Max >= atLimit*limit: // the kernel took pages back, or it would have been killed
		s.Confidence = atMost(s.Confidence, Medium)
		s.Reason += ", which its limit held down"
	}
	s.Limit = max(least, math.Ceil(need/step-1e-9)*step)
	if need < least {
		s.Reason += "; less is never suggested"
	}
	if float64(f.MemoryRequest) > s.Limit { // runtimes refuse that
		s.Reason += fmt.Sprintf("; its request of %s has to come down with it", mebi(float64(f.MemoryRequest)))
	}
	return s
}

func confidence(seen time.Duration) Confidence {
	switch {
	case seen < 6*time.Hour:
		return Low
	case seen < 72*time.Hour:
		return Medium
	}
	return High
}

func atMost(c, most Confidence) Confidence {
	if c.Value() > most.Value() {
		return most
	}
	return c
}

func percent(headroom float64) string { return fmt.Sprintf("%.0f%%", headroom*100) }

func mebi(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }

func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f seconds", d.Seconds())
	}
	return fmt.Sprintf("%.0f minutes", d.Minutes())
}

func sortedAdvice(of map[string]Advice) []Advice {
	return slices.SortedFunc(maps.Values(of), func(a, b Advice) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Subject(), b.Subject()))
	})
}
