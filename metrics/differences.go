package metrics

// Difference is one way in which our page is not cAdvisor's, and why. The comparison test in test/bench holds both pages
// of the same containers against this list; docs/metrics.md shows it.
type Difference struct {
	Name   string
	On     string // "v1" (and hybrid) or "v2": only on hosts with that cgroup version
	Root   bool   // only for the root cgroup, id="/"
	Zero   bool   // only where cAdvisor shows 0
	Ours   bool   // cAdvisor has none: what it shows by that name would have to be ours
	Reason string
}

// Covers tells whether d is why cAdvisor, on a host with that cgroup version, shows the value theirs of the root cgroup, or
// of another, and we show another or none.
func (d Difference) Covers(version string, root bool, theirs float64) bool {
	return !d.Ours && (d.On == "" || d.On == version) && (!d.Root || root) && (!d.Zero || theirs == 0)
}

// Differences gives all of them for the groups that are compared.
func Differences() []Difference { return differences }

const (
	noSuchFile = "cAdvisor shows 0 where the kernel tells nothing; we leave the series out."
	noPressure = "On a hybrid host cAdvisor shows 0; we read it in the container's cgroup of the unified hierarchy."
	notPeers   = "Not in cAdvisor."
	loopDevice = "For loop devices cAdvisor leaves the label device empty; we name them."
)

var differences = []Difference{
	{Name: "container_cpuset_cpus", Ours: true, Reason: notPeers},
	{Name: "container_memory_shmem_bytes", Ours: true, Reason: notPeers},
	{Name: "container_memory_anon_huge_bytes", Ours: true, Reason: notPeers},
	{Name: "container_restarts_total", Ours: true, Reason: notPeers},
	{Name: "container_memory_events_oom_total", Ours: true, Reason: notPeers},
	{Name: "container_memory_unevictable_bytes", Ours: true, Reason: notPeers},
	{Name: "container_memory_active_anon_bytes", Ours: true, Reason: notPeers},
	{Name: "container_memory_inactive_anon_bytes", Ours: true, Reason: notPeers},
	{Name: "container_fs_io_latency_seconds", Ours: true, Reason: notPeers},
	{Name: "container_spec_fs_io_latency_seconds", Ours: true, Reason: notPeers},

	{Name: "container_memory_events_high_total", On: "v1", Zero: true, Reason: noSuchFile},
	{Name: "container_memory_events_max_total", On: "v1", Zero: true, Reason: noSuchFile},
	{Name: "container_memory_pgscan_total", On: "v1", Zero: true, Reason: noSuchFile},
	{Name: "container_memory_pgsteal_total", On: "v1", Zero: true, Reason: noSuchFile},
	{Name: "container_memory_file_dirty_bytes", On: "v1", Zero: true, Reason: "cAdvisor shows 0; we read memory.stat total_dirty."},
	{Name: "container_memory_file_writeback_bytes", On: "v1", Zero: true, Reason: "cAdvisor shows 0; we read memory.stat total_writeback."},
	{Name: "container_memory_workingset_refault_file_total", On: "v1", Reason: "cAdvisor leaves sub-cgroups out; we count them, as for all other memory."},
	{Name: "container_memory_workingset_refault_anon_total", On: "v1", Reason: "cAdvisor leaves sub-cgroups out; we count them, as for all other memory."},
	{Name: "container_pressure_cpu_stalled_seconds_total", On: "v1", Zero: true, Reason: noPressure},
	{Name: "container_pressure_cpu_waiting_seconds_total", On: "v1", Zero: true, Reason: noPressure},
	{Name: "container_pressure_memory_stalled_seconds_total", On: "v1", Zero: true, Reason: noPressure},
	{Name: "container_pressure_memory_waiting_seconds_total", On: "v1", Zero: true, Reason: noPressure},
	{Name: "container_pressure_io_stalled_seconds_total", On: "v1", Zero: true, Reason: noPressure},
	{Name: "container_pressure_io_waiting_seconds_total", On: "v1", Zero: true, Reason: noPressure},

	{Name: "container_memory_kernel_usage", On: "v2", Zero: true, Reason: "cAdvisor shows 0; we read memory.stat kernel."},
	{Name: "container_memory_failcnt", On: "v2", Zero: true, Reason: "cAdvisor shows 0; we read memory.events max, which the root cgroup has not."},
	{Name: "container_memory_migrate", On: "v2", Zero: true, Reason: noSuchFile},
	{Name: "container_hugetlb_max_usage_bytes", On: "v2", Zero: true, Reason: noSuchFile},
	{Name: "container_memory_max_usage_bytes", On: "v2", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_memory_events_high_total", On: "v2", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_memory_events_max_total", On: "v2", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_spec_memory_reservation_limit_bytes", On: "v2", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_spec_cpu_shares", On: "v2", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_spec_cpu_period", On: "v2", Root: true, Zero: true, Reason: noSuchFile},

	{Name: "container_threads", On: "v1", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_threads", On: "v2", Root: true, Reason: "cAdvisor counts the threads of the root cgroup alone, without those below it: the kernel's own; left out."},
	{Name: "container_threads_max", Root: true, Zero: true, Reason: noSuchFile},
	{Name: "container_fs_reads_bytes_total", Root: true, Reason: loopDevice},
	{Name: "container_fs_reads_total", Root: true, Reason: loopDevice},
	{Name: "container_fs_writes_bytes_total", Root: true, Reason: loopDevice},
	{Name: "container_fs_writes_total", Root: true, Reason: loopDevice},
	{Name: "container_file_descriptors", Root: true, Reason: "cAdvisor asks each process of the root cgroup, where the shims of all containers may be; that costs 2 us for each of them at each scrape; left out."},
	{Name: "container_health_state", Root: true, Reason: "The machine has no health check; cAdvisor shows -1."},
	{Name: "container_creation_time_seconds", Root: true, Reason: "cAdvisor shows the time of boot; we leave it out."},
	{Name: "container_start_time_seconds", Root: true, Reason: "cAdvisor shows the time of boot; we leave it out."},

	{Name: "container_oom_events_total", Reason: "cAdvisor counts lines of the kernel's log since it was started; we show the cgroup's own count, which misses nothing and which the root cgroup of v2 has not."},
	{Name: "container_sockets", Reason: "It costs one readlink for each open file at each scrape; only with metrics.also: [sockets]."},
	{Name: "container_ulimits_soft", Reason: "It costs one file of /proc for each container at each scrape, for a value that does not change; not read."},

	{Name: "machine_cpu_books", Zero: true, Reason: "Of mainframes only; cAdvisor shows 0 elsewhere."},
	{Name: "machine_cpu_drawers", Zero: true, Reason: "Of mainframes only; cAdvisor shows 0 elsewhere."},
	{Name: "machine_nvm_avg_power_budget_watts", Zero: true, Reason: "Non-volatile memory modules are not read; cAdvisor shows 0 without ipmctl."},
	{Name: "machine_nvm_capacity", Zero: true, Reason: "Non-volatile memory modules are not read; cAdvisor shows 0 without ipmctl."},
}
