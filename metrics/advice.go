package metrics

import (
	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/history"
)

// adviceMetric has one series, or none, for each container of which the history knows something.
type adviceMetric struct {
	Metric
	value func(a *history.Advice) (float64, bool)
}

var adviceMetrics = []adviceMetric{
	ofAdvice("fairlead_advice_cpu_p50_cores", "cores", "Half of the time the container used no more CPU than this, over metrics.history.keep.",
		ofCPU(func(q *history.Quantiles) float64 { return q.P50 })),
	ofAdvice("fairlead_advice_cpu_p95_cores", "cores", "95 % of the time the container used no more CPU than this.",
		ofCPU(func(q *history.Quantiles) float64 { return q.P95 })),
	ofAdvice("fairlead_advice_cpu_max_cores", "cores", "The most CPU that the container used in any interval.",
		ofCPU(func(q *history.Quantiles) float64 { return q.Max })),
	ofAdvice("fairlead_advice_cpu_limit_cores", "cores", "The CPU limit that would fit; fairlead advise says why.",
		ofSuggestion(func(a *history.Advice) *history.Suggestion { return a.CPUSuggestion })),
	ofAdvice("fairlead_advice_cpu_confidence_ratio", "ratio", "How far the CPU advice can be trusted: 0.2 is low, 0.6 medium, 0.9 high.",
		ofConfidence(func(a *history.Advice) *history.Suggestion { return a.CPUSuggestion })),
	ofAdvice("fairlead_advice_throttled_ratio", "ratio", "Share of CPU periods in which the container was stopped by its limit.",
		func(a *history.Advice) (float64, bool) { return a.Throttled, a.CPULimit > 0 }),
	ofAdvice("fairlead_advice_memory_p50_bytes", "bytes", "Half of the time the container's working set was no more than this.",
		ofMemory(func(q *history.Quantiles) float64 { return q.P50 })),
	ofAdvice("fairlead_advice_memory_p95_bytes", "bytes", "95 % of the time the container's working set was no more than this.",
		ofMemory(func(q *history.Quantiles) float64 { return q.P95 })),
	ofAdvice("fairlead_advice_memory_max_bytes", "bytes", "The highest working set of the container in any sample.",
		ofMemory(func(q *history.Quantiles) float64 { return q.Max })),
	ofAdvice("fairlead_advice_memory_limit_bytes", "bytes", "The memory limit that would fit; fairlead advise says why.",
		ofSuggestion(func(a *history.Advice) *history.Suggestion { return a.MemorySuggestion })),
	ofAdvice("fairlead_advice_memory_confidence_ratio", "ratio", "How far the memory advice can be trusted: 0.2 is low, 0.6 medium, 0.9 high.",
		ofConfidence(func(a *history.Advice) *history.Suggestion { return a.MemorySuggestion })),
	ofAdvice("fairlead_advice_oom_kills", "", "Processes that the kernel killed in the container for want of memory, over metrics.history.keep.",
		func(a *history.Advice) (float64, bool) { return float64(a.OOMKills), true }),
}

func ofAdvice(name, unit, help string, value func(*history.Advice) (float64, bool)) adviceMetric {
	return adviceMetric{Metric{Family: expo.Family{Name: name, Unit: unit, Type: gauge, Help: help}, Group: "advice"}, value}
}

func ofCPU(of func(*history.Quantiles) float64) func(*history.Advice) (float64, bool) {
	return func(a *history.Advice) (float64, bool) {
		if a.CPU == nil {
			return 0, false
		}
		return of(a.CPU), true
	}
}

func ofMemory(of func(*history.Quantiles) float64) func(*history.Advice) (float64, bool) {
	return func(a *history.Advice) (float64, bool) {
		if a.Memory == nil {
			return 0, false
		}
		return of(a.Memory), true
	}
}

func ofSuggestion(of func(*history.Advice) *history.Suggestion) func(*history.Advice) (float64, bool) {
	return func(a *history.Advice) (float64, bool) {
		if s := of(a); s != nil {
			return s.Limit, true
		}
		return 0, false
	}
}

func ofConfidence(of func(*history.Advice) *history.Suggestion) func(*history.Advice) (float64, bool) {
	return func(a *history.Advice) (float64, bool) {
		if s := of(a); s != nil {
			return s.Confidence.Value(), true
		}
		return 0, false
	}
}

// counsel finds what is advised for each container that was read.
func (m *Metrics) counsel(p *page) {
	p.advised = p.advised[:0]
	if m.history == nil || m.scratch.encode.exclude["advice"] {
		return
	}
	for _, r := range p.readings {
		if r.slot.several {
			continue
		}
		if a, ok := m.history.AdviceFor(r.slot.who()); ok {
			p.advised = append(p.advised, advised{r.slot, a})
		}
	}
}

// advised is a container with what is advised for it.
type advised struct {
	slot   *slot
	advice history.Advice
}

func (m *adviceMetric) write(s *encode, p *page) {
	if len(p.advised) == 0 {
		return
	}
	s.encoder.Family(m.Family)
	for i := range p.advised {
		if v, ok := m.value(&p.advised[i].advice); ok {
			s.sample(p.advised[i].slot, p.advised[i].slot.labels, nil, v)
		}
	}
}
