package metrics

// Difference is one way in which our page is not cAdvisor's, and why. The comparison test in test/bench holds both pages
// of the same containers against this list; docs/metrics.md shows it.
type Difference struct {
	Name   string
	Root   bool // only for the root cgroup, id="/"
	Type   bool // the type differs, not the value
	Reason string
}

// Differences gives all of them for the groups that are compared.
func Differences() []Difference { return differences }

const (
	v1NoSuchFile = "cAdvisor shows 0 where the kernel tells nothing (cgroup v1); we leave the series out."
	noPressure   = "On a hybrid host cAdvisor shows 0; we read it in the container's cgroup of the unified hierarchy."
	notPeers     = "Not in cAdvisor."
	loopDevice   = "For loop devices cAdvisor leaves the label device empty; we name them."
)

var differences = []Difference{
	{Name: "container_cpuset_cpus", Reason: notPeers},
	{Name: "container_memory_shmem_bytes", Reason: notPeers},
	{Name: "container_memory_anon_huge_bytes", Reason: notPeers},
	{Name: "container_restarts_total", Reason: notPeers},
	{Name: "container_memory_events_oom_total", Reason: notPeers},
	{Name: "container_memory_unevictable_bytes", Reason: notPeers},
	{Name: "container_memory_active_anon_bytes", Reason: notPeers},
	{Name: "container_memory_inactive_anon_bytes", Reason: notPeers},

	{Name: "container_memory_events_high_total", Reason: v1NoSuchFile},
	{Name: "container_memory_events_max_total", Reason: v1NoSuchFile},
	{Name: "container_memory_pgscan_total", Reason: v1NoSuchFile},
	{Name: "container_memory_pgsteal_total", Reason: v1NoSuchFile},
	{Name: "container_memory_file_dirty_bytes", Reason: "On cgroup v1 cAdvisor shows 0; we read memory.stat total_dirty."},
	{Name: "container_memory_file_writeback_bytes", Reason: "On cgroup v1 cAdvisor shows 0; we read memory.stat total_writeback."},
	{Name: "container_memory_workingset_refault_file_total", Reason: "On cgroup v1 cAdvisor leaves sub-cgroups out; we count them, as for all other memory."},
	{Name: "container_memory_workingset_refault_anon_total", Reason: "On cgroup v1 cAdvisor leaves sub-cgroups out; we count them, as for all other memory."},
	{Name: "container_oom_events_total", Reason: "cAdvisor counts lines of the kernel's log since it was started; we show the cgroup's own count, which misses nothing."},

	{Name: "container_pressure_cpu_stalled_seconds_total", Reason: noPressure},
	{Name: "container_pressure_cpu_waiting_seconds_total", Reason: noPressure},
	{Name: "container_pressure_memory_stalled_seconds_total", Reason: noPressure},
	{Name: "container_pressure_memory_waiting_seconds_total", Reason: noPressure},
	{Name: "container_pressure_io_stalled_seconds_total", Reason: noPressure},
	{Name: "container_pressure_io_waiting_seconds_total", Reason: noPressure},

	{Name: "container_fs_reads_bytes_total", Root: true, Reason: loopDevice},
	{Name: "container_fs_reads_total", Root: true, Reason: loopDevice},
	{Name: "container_fs_writes_bytes_total", Root: true, Reason: loopDevice},
	{Name: "container_fs_writes_total", Root: true, Reason: loopDevice},
	{Name: "container_file_descriptors", Root: true, Reason: "cAdvisor asks each process of the root cgroup, where the shims of all containers are; that costs 2 us for each of them at each scrape; left out."},
	{Name: "container_health_state", Root: true, Reason: "The machine has no health check; cAdvisor shows -1."},
	{Name: "container_sockets", Reason: "It costs one readlink for each open file at each scrape; only with metrics.also: [sockets]."},
	{Name: "container_fs_io_latency_seconds", Reason: notPeers},
	{Name: "container_spec_fs_io_latency_seconds", Reason: notPeers},
	{Name: "container_ulimits_soft", Reason: "It costs one file of /proc for each container at each scrape, for a value that does not change; not read."},
	{Name: "container_creation_time_seconds", Root: true, Reason: "cAdvisor shows the time of boot; we leave it out."},
	{Name: "container_start_time_seconds", Root: true, Reason: "cAdvisor shows the time of boot; we leave it out."},
	{Name: "container_threads", Root: true, Reason: "The kernel does not count them there; cAdvisor shows 0."},
	{Name: "container_threads_max", Root: true, Reason: "The root cgroup has no such file; cAdvisor shows 0."},

	{Name: "machine_cpu_books", Reason: "Of mainframes only; cAdvisor shows 0 elsewhere."},
	{Name: "machine_cpu_drawers", Reason: "Of mainframes only; cAdvisor shows 0 elsewhere."},
	{Name: "machine_nvm_avg_power_budget_watts", Reason: "Non-volatile memory modules are not read; cAdvisor shows 0 without ipmctl."},
	{Name: "machine_nvm_capacity", Reason: "Non-volatile memory modules are not read; cAdvisor shows 0 without ipmctl."},
}
