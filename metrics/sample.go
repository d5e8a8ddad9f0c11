package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/history"
	"github.com/fairlead-dev/fairlead/metrics/linkstat"
)

// Samples reads every container now for the history, in common with scrapes that are under way at the same time: those
// that live, those that are there but could not be read, and the last samples of those that ended lately.
func (m *Metrics) Samples(ctx context.Context) ([]history.Sample, error) {
	a, release, err := m.share.get(ctx, sampled)
	if err != nil {
		return nil, err
	}
	defer release()
	return a.samples, nil
}

// History is the history of this part, or nil when it is off.
func (m *Metrics) History() *history.History { return m.history }

func (p *page) samples() []history.Sample {
	out := make([]history.Sample, 0, len(p.all)+len(p.ended))
	read := make(map[*slot]int, len(p.all))
	for _, r := range p.readings {
		if r.slot.several {
			continue
		}
		read[r.slot] = len(out)
		s := sampleOf(r.slot, r.stats, p.at)
		s.Read = true
		out = append(out, s)
	}
	for _, s := range p.all {
		if _, ok := read[s]; !ok && !s.several {
			out = append(out, history.Sample{Who: s.who(), Life: s.key.life(), At: p.at, Started: s.started})
		}
	}
	for i := range p.net {
		if at, ok := read[p.net[i].slot]; ok {
			addNetwork(&out[at].Total, &p.net[i].counters)
		}
	}
	for _, e := range p.ended {
		s := sampleOf(e.slot, &e.final.stats, e.final.at)
		s.Read, s.Ended = !e.final.missed, true
		out = append(out, s)
	}
	return out
}

func sampleOf(s *slot, st *cgroup.Stats, at time.Time) history.Sample {
	out := history.Sample{Who: s.who(), Life: s.key.life(), At: at, Started: s.started}
	t := &out.Total
	t[history.CPU] = st.CPU.Usage
	if st.CPU.Quota.Known { // without one the kernel counts periods, but stops nobody
		t[history.Periods], t[history.ThrottledPeriods] = st.CPU.Periods, st.CPU.ThrottledPeriods
	}
	t[history.OOMKills] = st.Memory.OOMKills
	for _, d := range st.IO {
		add(&t[history.BytesRead], d.Bytes[cgroup.Read])
		add(&t[history.BytesWritten], d.Bytes[cgroup.Write])
	}
	l := &out.Level
	l.Memory, l.Peak = st.Memory.WorkingSet(), st.Memory.MaxUsage
	if v := st.Memory.Limit; v.Known && !unlimited(v) {
		l.MemoryLimit = v
	}
	if v := st.Memory.Reservation; v.Known && v.N > 0 && !unlimited(v) {
		l.MemoryRequest = v
	}
	if q, period := st.CPU.Quota, st.CPU.Period; q.Known && period.Known && period.N > 0 {
		l.CPULimit = float64(q.N) / float64(period.N)
	}
	// Kubernetes makes a request of one core 1024 shares. Elsewhere 1024 is what a container has that asked for nothing.
	if v := st.CPU.Shares; v.Known && (s.pod.Name != "" && v.N > 2 || v.N != 1024 && v.N > 2) {
		l.CPURequest = float64(v.N) / 1024
	}
	return out
}

func add(to *cgroup.Value, v cgroup.Value) {
	if v.Known {
		*to = cgroup.Known(to.N + v.N)
	}
}

func addNetwork(to *history.Amounts, c *linkstat.Counters) {
	add(&to[history.BytesReceived], cgroup.Known(c.RxBytes))
	add(&to[history.BytesSent], cgroup.Known(c.TxBytes))
}

func (s *slot) who() history.Who {
	name := s.name
	if name == "" {
		name = string(s.id)
	}
	w := history.Who{Runtime: s.runtime, ID: s.id, Name: name, Image: s.image}
	if s.pod != (container.Pod{}) {
		w.Namespace, w.Pod, w.Container = s.pod.Namespace, s.pod.Name, s.pod.Container
	}
	return w
}

// life is key as a word. The start is in it only where nobody saw a process, and then in seconds: what a runtime says of
// it may be finer in one answer than in another.
func (k key) life() string {
	if k.pid == 0 {
		return fmt.Sprintf("%s/%s/@%d", k.runtime, k.id, k.started.Unix())
	}
	return fmt.Sprintf("%s/%s/%d", k.runtime, k.id, k.pid)
}
