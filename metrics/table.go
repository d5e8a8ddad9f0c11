package metrics

import (
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/linkstat"
	"github.com/fairlead-dev/fairlead/metrics/machine"
)

// Metric is one line of the table from which /metrics and its documentation are made.
type Metric struct {
	expo.Family
	// Labels are those beyond id, image and name (and container, namespace and pod in Kubernetes), or beyond
	// boot_id, machine_id and system_uuid for the machine's.
	Labels []string
}

// Table gives every metric of containers and of the machine, in the order of the page. The agent's own are in its
// stat.Registry.
func Table() []Metric {
	var out []Metric
	for _, m := range containerMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range networkMetrics {
		out = append(out, m.Metric)
	}
	for _, m := range machineMetrics {
		out = append(out, m.Metric)
	}
	return out
}

const (
	counter = stat.TypeCounter
	gauge   = stat.TypeGauge
)

// containerMetric has one series, or none, for each container. Names, labels, types and units are cAdvisor's.
type containerMetric struct {
	Metric
	extra []byte
	value func(p *page, r *reading) (float64, bool)
}

var containerMetrics = []containerMetric{
	metric("container_last_seen", "seconds", gauge, "Time of this scrape, in seconds since 1970; present for each container that was read.",
		func(p *page, _ *reading) (float64, bool) { return float64(p.at.Unix()), true }),
	metric("container_start_time_seconds", "seconds", gauge, "When the container was started, in seconds since 1970, as its runtime says.",
		func(_ *page, r *reading) (float64, bool) {
			return float64(r.slot.started.Unix()), !r.slot.started.IsZero()
		}),

	{
		Metric: Metric{Family: expo.Family{Name: "container_cpu_usage_seconds_total", Unit: "seconds", Type: counter,
			Help: "CPU time used, from cpuacct.usage (v1) or cpu.stat usage_usec (v2) of the container's cgroup."}, Labels: []string{"cpu"}},
		extra: expo.AppendLabel(nil, "cpu", "total"),
		value: seconds(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Usage }),
	},
	metric("container_cpu_user_seconds_total", "seconds", counter, "CPU time used in user mode, from cpuacct.stat (v1, in steps of 10 ms) or cpu.stat user_usec (v2).",
		seconds(func(s *cgroup.Stats) cgroup.Value { return s.CPU.User })),
	metric("container_cpu_system_seconds_total", "seconds", counter, "CPU time used in the kernel, from cpuacct.stat (v1, in steps of 10 ms) or cpu.stat system_usec (v2).",
		seconds(func(s *cgroup.Stats) cgroup.Value { return s.CPU.System })),
	metric("container_cpu_cfs_periods_total", "", counter, "Enforcement periods of the CPU quota that have passed, from cpu.stat; absent without a quota.",
		number(withQuota(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Periods }))),
	metric("container_cpu_cfs_throttled_periods_total", "", counter, "Enforcement periods in which the container was stopped for having used up its CPU quota, from cpu.stat; absent without a quota.",
		number(withQuota(func(s *cgroup.Stats) cgroup.Value { return s.CPU.ThrottledPeriods }))),
	metric("container_cpu_cfs_throttled_seconds_total", "seconds", counter, "Time for which the container was stopped by its CPU quota, summed over its CPUs, from cpu.stat; absent without a quota.",
		seconds(withQuota(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Throttled }))),
	metric("container_spec_cpu_quota", "", gauge, "CPU time allowed in each period, in microseconds, from cpu.cfs_quota_us (v1) or cpu.max (v2); absent when there is no quota.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Quota })),
	metric("container_spec_cpu_period", "", gauge, "Length of a CPU quota's period in microseconds, from cpu.cfs_period_us (v1) or cpu.max (v2).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Period })),
	metric("container_spec_cpu_shares", "", gauge, "Relative weight of the container under contention, from cpu.shares (v1) or cpu.weight (v2, converted to shares).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Shares })),

	metric("container_memory_usage_bytes", "bytes", gauge, "Memory charged to the container, page cache included, from memory.usage_in_bytes (v1) or memory.current (v2).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Usage })),
	metric("container_memory_working_set_bytes", "bytes", gauge, "Memory that the kernel cannot easily take back: usage less inactive file pages, never below 0.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.WorkingSet() })),
	metric("container_memory_rss", "bytes", gauge, "Anonymous memory, from memory.stat total_rss (v1) or anon (v2), in bytes.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.RSS })),
	metric("container_memory_cache", "bytes", gauge, "Page cache, shared memory and tmpfs, from memory.stat total_cache (v1) or file (v2), in bytes.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Cache })),
	metric("container_memory_mapped_file", "bytes", gauge, "Page cache that processes have mapped, from memory.stat total_mapped_file (v1) or file_mapped (v2), in bytes.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Mapped })),
	metric("container_memory_swap", "bytes", gauge, "Swap used, from memory.stat total_swap (v1) or memory.swap.current (v2), in bytes.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Swap })),
	metric("container_memory_total_active_file_bytes", "bytes", gauge, "File pages used lately, from memory.stat total_active_file (v1) or active_file (v2).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.ActiveFile })),
	metric("container_memory_total_inactive_file_bytes", "bytes", gauge, "File pages not used lately, from memory.stat total_inactive_file (v1) or inactive_file (v2).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.InactiveFile })),
	metric("container_memory_max_usage_bytes", "bytes", gauge, "Highest usage so far, from memory.max_usage_in_bytes (v1) or memory.peak (v2, since Linux 5.19).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.MaxUsage })),
	metric("container_memory_failcnt", "", counter, "How often usage met the limit, from memory.failcnt (v1) or memory.events max (v2).",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.HitLimit })),
	metric("container_spec_memory_limit_bytes", "bytes", gauge, "Memory limit, from memory.limit_in_bytes (v1) or memory.max (v2); 0 is none.",
		number(zeroIsNone(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Limit }))),
	metric("container_spec_memory_swap_limit_bytes", "bytes", gauge, "Limit of memory and swap together, from memory.memsw.limit_in_bytes (v1), or of swap alone, from memory.swap.max (v2); 0 is none.",
		number(zeroIsNone(func(s *cgroup.Stats) cgroup.Value { return s.Memory.SwapLimit }))),

	metric("container_processes", "", gauge, "Processes in the container's cgroup itself, counted in cgroup.procs.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Processes })),
	metric("container_threads", "", gauge, "Threads in the container, from pids.current.",
		number(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Threads })),
	metric("container_threads_max", "", gauge, "Limit of threads, from pids.max; 0 is none.",
		number(zeroIsNone(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Limit }))),
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

func perInterface(name, unit, what string, value func(*linkstat.Counters) uint64) networkMetric {
	help := what + " by the container on this interface, counted by the kernel at the host's end of its link, or inside where there is none."
	return networkMetric{Metric{expo.Family{Name: name, Unit: unit, Type: counter, Help: help}, []string{"interface"}}, value}
}

func ofMachine(name, unit, help string, value func(*machine.Facts) *uint64) machineMetric {
	return machineMetric{Metric{Family: expo.Family{Name: name, Unit: unit, Type: gauge, Help: help}}, value}
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
