package metrics

import (
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// hugeMetric has one series for each container and size of huge pages.
type hugeMetric struct {
	Metric
	value func(h *cgroup.Huge) cgroup.Value
}

var hugeMetrics = []hugeMetric{
	perPageSize("container_hugetlb_usage_bytes", "bytes", gauge, "Huge pages used, from hugetlb.SIZE.usage_in_bytes (v1) or hugetlb.SIZE.current (v2).",
		func(h *cgroup.Huge) cgroup.Value { return h.Usage }),
	perPageSize("container_hugetlb_max_usage_bytes", "bytes", gauge, "Highest use of huge pages so far, from hugetlb.SIZE.max_usage_in_bytes (v1 only).",
		func(h *cgroup.Huge) cgroup.Value { return h.MaxUsage }),
	perPageSize("container_hugetlb_failcnt", "", counter, "How often the use of huge pages met its limit, from hugetlb.SIZE.failcnt (v1) or hugetlb.SIZE.events max (v2).",
		func(h *cgroup.Huge) cgroup.Value { return h.HitLimit }),
}

func perPageSize(name, unit string, typ stat.Type, help string, value func(*cgroup.Huge) cgroup.Value) hugeMetric {
	return hugeMetric{Metric{expo.Family{Name: name, Unit: unit, Type: typ, Help: help}, "hugetlb", []string{"pagesize"}}, value}
}

// pageSizes renders the label of each size once. It is used by one scrape at a time.
type pageSizes map[string][]byte

// write writes the series of every container and size.
func (m *hugeMetric) write(s *encode, p *page) {
	s.encoder.Family(m.Family)
	for i := range p.readings {
		r := &p.readings[i]
		for j := range r.stats.Huge {
			h := &r.stats.Huge[j]
			v := m.value(h)
			if !v.Known {
				continue
			}
			label, ok := s.pages[h.PageSize]
			if !ok {
				label = expo.AppendLabel(nil, "pagesize", h.PageSize)
				s.pages[h.PageSize] = label
			}
			s.sample(r.slot, r.slot.labels, label, float64(v.N))
		}
	}
}
