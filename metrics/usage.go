package metrics

import (
	"context"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// Usage is what one container uses now, for people. What is absent is unknown; a limit that is absent is none.
type Usage struct {
	Runtime          container.Runtime `json:"runtime"`
	ID               container.ID      `json:"id"`
	Name             string            `json:"name"`
	Cgroup           string            `json:"cgroup"`
	At               time.Time         `json:"at"`                                 // two of them and their CPUSeconds give a rate
	CPUSeconds       *float64          `json:"cpu_seconds,omitempty"`              // since the container began
	CPULimit         *float64          `json:"cpu_limit_cores,omitempty"`          // quota divided by period
	MemoryBytes      *uint64           `json:"memory_working_set_bytes,omitempty"` // what eviction and people look at
	MemoryLimitBytes *uint64           `json:"memory_limit_bytes,omitempty"`
	Threads          *uint64           `json:"threads,omitempty"`
}

// Usage reads every container now, in common with scrapes that are under way at the same time. It blocks for at most
// two scrapes' time budget, or until ctx ends. A container that could not be read is not in the result.
func (m *Metrics) Usage(ctx context.Context) ([]Usage, error) {
	a, release, err := m.share.get(ctx, usages)
	if err != nil {
		return nil, err
	}
	defer release()
	return a.usage, nil
}

func (p *page) usage() []Usage {
	out := make([]Usage, 0, len(p.readings))
	for _, r := range p.readings {
		if r.slot.several {
			continue
		}
		s := r.stats
		u := Usage{
			Runtime: r.slot.runtime, ID: r.slot.id, Name: r.slot.name, Cgroup: r.slot.key.path, At: p.at,
		}
		if v := s.CPU.Usage; v.Known {
			u.CPUSeconds = new(float64(v.N) / 1e9)
		}
		if q, period := s.CPU.Quota, s.CPU.Period; q.Known && period.Known && period.N > 0 {
			u.CPULimit = new(float64(q.N) / float64(period.N))
		}
		if v := s.Memory.WorkingSet(); v.Known {
			u.MemoryBytes = new(v.N)
		}
		if v := s.Memory.Limit; v.Known && !unlimited(v) {
			u.MemoryLimitBytes = new(v.N)
		}
		if v := s.Pids.Threads; v.Known {
			u.Threads = new(v.N)
		}
		out = append(out, u)
	}
	return out
}
