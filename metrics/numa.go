package metrics

import (
	"strconv"

	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// numaMetric has one series for each container, kind of memory and node.
var numaMetric = Metric{expo.Family{Name: "container_memory_numa_pages", Type: gauge,
	Help: "Pages on each NUMA node, from memory.numa_stat; of the container with all below it (hierarchy) and, where v1 tells, alone (container)."},
	"numa", []string{"node", "scope", "type"}}

// numaLabels renders the labels of each kind and node once. It is used by one scrape at a time.
type numaLabels map[cgroup.NodePages][]byte

func (l numaLabels) of(n cgroup.NodePages) []byte {
	n.Pages = 0
	b, ok := l[n]
	if !ok {
		scope := "container"
		if n.Whole {
			scope = "hierarchy"
		}
		b = expo.AppendLabel(nil, "node", strconv.FormatUint(n.Node, 10))
		b = expo.AppendLabel(expo.AppendLabel(b, "scope", scope), "type", n.Kind)
		l[n] = b
	}
	return b
}

func (s *encode) numa(p *page) {
	if s.exclude[numaMetric.Group] {
		return
	}
	s.encoder.Family(numaMetric.Family)
	for i := range p.readings {
		r := &p.readings[i]
		for _, n := range r.stats.NUMA {
			s.sample(r.slot, r.slot.labels, s.nodes.of(n), float64(n.Pages))
		}
	}
}
