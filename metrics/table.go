package metrics

import (
	"slices"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/linkstat"
	"github.com/fairlead-dev/fairlead/metrics/machine"
)

// Metric is one line of the table from which /metrics and its documentation are made.
type Metric struct {
	expo.Family
	// Group is what the metric can be excluded by; see Config.Exclude.
	Group string
	// Labels are those beyond id, image and name (and container, namespace and pod in Kubernetes), or beyond
	// boot_id, machine_id and system_uuid for the machine's.
	Labels []string
}

// Table gives every metric of containers and of the machine, in the order of the page. The agent's own are in its
// stat.Registry.
func Table() []Metric {
	var out []Metric
	for i, m := range containerMetrics {
		if i == 0 || m.Name != containerMetrics[i-1].Name { // some have several series for each container
			out = append(out, m.Metric)
		}
	}
	for _, m := range deviceMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range hugeMetrics {
		out = append(out, m.Metric)
	}
	out = append(out, numaMetric, openSocketsMetric)
	for _, m := range socketMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range networkMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range endedMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range adviceMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range machineMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range diskMetrics {
		out = append(out, m.Metric)
	}
	return out
}

// Groups gives the groups of metrics, in the order of the page.
func Groups() []string {
	var out []string
	for _, m := range Table() {
		if !slices.Contains(out, m.Group) {
			out = append(out, m.Group)
		}
	}
	return out
}

const (
	counter = stat.TypeCounter
	gauge   = stat.TypeGauge
)

// containerMetric has one series, or none, for each container. Names, labels, types and units are cAdvisor's. Those that
// follow one another under the same name are one family; extra tells them apart.
type containerMetric struct {
	Metric
	extra []byte
	value func(p *page, r *reading) (float64, bool)
}

// networkMetric has one series for each interface of a container.
type networkMetric struct {
	Metric
	value func(c *linkstat.Counters) uint64
}

var networkMetrics = []networkMetric{
	perInterface("container_network_receive_bytes_total", "bytes", "Bytes received", func(c *linkstat.Counters) uint64 { return c.RxBytes }),
	perInterface("container_network_receive_packets_total", "", "Packets received", func(c *linkstat.Counters) uint64 { return c.RxPackets }),
	perInterface("container_network_receive_packets_dropped_total", "", "Packets dropped on their way in", func(c *linkstat.Counters) uint64 { return c.RxDropped }),
	perInterface("container_network_receive_errors_total", "", "Errors on receiving", func(c *linkstat.Counters) uint64 { return c.RxErrors }),
	perInterface("container_network_transmit_bytes_total", "bytes", "Bytes sent", func(c *linkstat.Counters) uint64 { return c.TxBytes }),
	perInterface("container_network_transmit_packets_total", "", "Packets sent", func(c *linkstat.Counters) uint64 { return c.TxPackets }),
	perInterface("container_network_transmit_packets_dropped_total", "", "Packets dropped on their way out", func(c *linkstat.Counters) uint64 { return c.TxDropped }),
	perInterface("container_network_transmit_errors_total", "", "Errors on sending", func(c *linkstat.Counters) uint64 { return c.TxErrors }),
}

// machineMetric has one series, or none.
type machineMetric struct {
	Metric
	value func(f *machine.Facts) *uint64
}

var machineMetrics = []machineMetric{
	ofMachine("machine_cpu_cores", "", "Processors (hardware threads) that are online, from sysfs.", func(f *machine.Facts) *uint64 { return f.Cores }),
	ofMachine("machine_cpu_physical_cores", "", "Physical cores that are online, from the topology in sysfs.", func(f *machine.Facts) *uint64 { return f.PhysicalCores }),
	ofMachine("machine_cpu_sockets", "", "Processor packages that are online, from the topology in sysfs.", func(f *machine.Facts) *uint64 { return f.Sockets }),
	ofMachine("machine_memory_bytes", "bytes", "Memory that the kernel manages, from MemTotal of meminfo.", func(f *machine.Facts) *uint64 { return f.MemoryBytes }),
	ofMachine("machine_swap_bytes", "bytes", "Swap space, from SwapTotal of meminfo.", func(f *machine.Facts) *uint64 { return f.SwapBytes }),
}

func metric(name, unit string, typ stat.Type, help string, value func(*page, *reading) (float64, bool)) containerMetric {
	return containerMetric{Metric: Metric{Family: expo.Family{Name: name, Unit: unit, Type: typ, Help: help}}, value: value}
}

// labelled gives m one more label, whose value is fixed.
func labelled(m containerMetric, pairs ...string) containerMetric {
	for i := 0; i < len(pairs); i += 2 {
		m.Labels = append(m.Labels, pairs[i])
		m.extra = expo.AppendLabel(m.extra, pairs[i], pairs[i+1])
	}
	return m
}

// grouped puts ms into a group.
func grouped(name string, ms ...containerMetric) []containerMetric {
	for i := range ms {
		ms[i].Group = name
	}
	return ms
}

func perInterface(name, unit, what string, value func(*linkstat.Counters) uint64) networkMetric {
	help := what + " by the container on this interface, counted by the kernel at the host's end of its link, or inside where there is none."
	return networkMetric{Metric{expo.Family{Name: name, Unit: unit, Type: counter, Help: help}, "network", []string{"interface"}}, value}
}

func ofMachine(name, unit, help string, value func(*machine.Facts) *uint64) machineMetric {
	return machineMetric{Metric{Family: expo.Family{Name: name, Unit: unit, Type: gauge, Help: help}, Group: "machine"}, value}
}

type field func(*cgroup.Stats) cgroup.Value

func number(of field) func(*page, *reading) (float64, bool) {
	return func(_ *page, r *reading) (float64, bool) {
		v := of(r.stats)
		return float64(v.N), v.Known
	}
}

func seconds(of field) func(*page, *reading) (float64, bool) {
	return func(_ *page, r *reading) (float64, bool) {
		v := of(r.stats)
		return float64(v.N) / 1e9, v.Known
	}
}

// withQuota hides what means nothing without a CPU quota.
func withQuota(of field) field {
	return func(s *cgroup.Stats) cgroup.Value {
		if !s.CPU.Quota.Known {
			return cgroup.Value{}
		}
		return of(s)
	}
}

// unlimited tells a limit that does not limit. v1 rounds "no limit" down to whole pages, so there is no exact value.
func unlimited(v cgroup.Value) bool { return v.N > 1<<62 }

// zeroIsNone shows a limit that does not limit as 0, as cAdvisor does.
func zeroIsNone(of field) field {
	return func(s *cgroup.Stats) cgroup.Value {
		v := of(s)
		if unlimited(v) {
			v.N = 0
		}
		return v
	}
}
