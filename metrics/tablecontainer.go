package metrics

import (
	"slices"

	"github.com/fairlead-dev/fairlead/metrics/cgroup"
)

const faultsHelp = "Page faults, from memory.stat pgfault, and pgmajfault for those that had to read; of the container with all below it (hierarchy) and, where v1 tells, alone (container)."

var containerMetrics = slices.Concat(
	grouped("life",
		metric("container_last_seen", "seconds", gauge, "Time of this scrape, in seconds since 1970; present for each container that was read.",
			func(p *page, _ *reading) (float64, bool) { return float64(p.at.Unix()), true }),
		metric("container_start_time_seconds", "seconds", gauge, "When the container was started, in seconds since 1970, as its runtime says.",
			func(_ *page, r *reading) (float64, bool) {
				return float64(r.slot.started.Unix()), !r.slot.started.IsZero()
			}),

		metric("container_health_state", "", gauge, "1 when the container's health check says healthy, 0 when it does not, -1 without a health check, as its runtime says.",
			func(_ *page, r *reading) (float64, bool) {
				switch {
				case r.slot.several:
					return 0, false
				case r.slot.health == "":
					return -1, true
				case r.slot.health == "healthy":
					return 1, true
				}
				return 0, true
			}),
		metric("container_restarts_total", "", counter, "How often the runtime itself has started the container again, as Docker and Podman say; 0 under the others, where somebody else does.",
			func(_ *page, r *reading) (float64, bool) { return float64(r.slot.restarts), !r.slot.several }),
		metric("container_creation_time_seconds", "seconds", gauge, "When the container was created, in seconds since 1970, as its runtime says.",
			func(_ *page, r *reading) (float64, bool) {
				return float64(r.slot.created.Unix()), !r.slot.created.IsZero()
			}),
	),
	grouped("cpu",
		labelled(metric("container_cpu_usage_seconds_total", "seconds", counter, "CPU time used, from cpuacct.usage (v1) or cpu.stat usage_usec (v2) of the container's cgroup.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Usage })), "cpu", "total"),
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

		metric("container_cpu_cfs_burst_periods_total", "", counter, "Enforcement periods in which the container used more than its quota, from cpu.stat (since Linux 5.14); absent without a quota.",
			number(withQuota(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Bursts }))),
		metric("container_cpu_cfs_burst_seconds_total", "seconds", counter, "CPU time used beyond the quota in those periods, from cpu.stat; absent without a quota.",
			seconds(withQuota(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Burst }))),
	),
	grouped("cpuset",
		metric("container_cpuset_cpus", "", gauge, "Processors that the container may run on, counted in cpuset.effective_cpus (v1) or cpuset.cpus.effective (v2). Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Allowed })),
		metric("container_memory_migrate", "", gauge, "1 when pages move with the container to other memory nodes, from cpuset.memory_migrate (v1 only).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Migrate })),
	),
	grouped("memory",
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

		metric("container_memory_kernel_usage", "", gauge, "Memory that the kernel holds for the container, from memory.kmem.usage_in_bytes (v1) or memory.stat kernel (v2, since Linux 5.18), in bytes.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Kernel })),
		metric("container_memory_shmem_bytes", "bytes", gauge, "Shared memory and tmpfs, from memory.stat total_shmem (v1) or shmem (v2). Part of the cache. Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Shmem })),
		metric("container_memory_anon_huge_bytes", "bytes", gauge, "Anonymous memory in transparent huge pages, from memory.stat total_rss_huge (v1) or anon_thp (v2). Part of rss. Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.AnonHuge })),
		metric("container_memory_unevictable_bytes", "bytes", gauge, "Memory that cannot be reclaimed, such as mlock, from memory.stat. Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Unevictable })),
		metric("container_memory_active_anon_bytes", "bytes", gauge, "Anonymous memory used lately, from memory.stat. Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.ActiveAnon })),
		metric("container_memory_inactive_anon_bytes", "bytes", gauge, "Anonymous memory not used lately, from memory.stat. Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.InactiveAnon })),
		metric("container_memory_file_dirty_bytes", "bytes", gauge, "File pages that were changed and not yet written, from memory.stat total_dirty (v1) or file_dirty (v2).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Dirty })),
		metric("container_memory_file_writeback_bytes", "bytes", gauge, "File pages that are being written, from memory.stat total_writeback (v1) or file_writeback (v2).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Writeback })),
		metric("container_memory_workingset_refault_file_total", "", counter, "File pages that were read again soon after they had been taken, from memory.stat.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.RefaultFile })),
		metric("container_memory_workingset_refault_anon_total", "", counter, "Anonymous pages that came back soon after they had been swapped out, from memory.stat.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.RefaultAnon })),
		metric("container_memory_pgscan_total", "", counter, "Pages that reclaim looked at, from memory.stat pgscan (v2).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Scanned })),
		metric("container_memory_pgsteal_total", "", counter, "Pages that reclaim took, from memory.stat pgsteal (v2).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Stolen })),
		metric("container_memory_events_high_total", "", counter, "How often the container was slowed down at memory.high, from memory.events high (v2).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.HitHigh })),
		metric("container_memory_events_max_total", "", counter, "How often usage met the limit, from memory.events max (v2). On v1 see container_memory_failcnt.",
			number(func(s *cgroup.Stats) cgroup.Value {
				if !s.Memory.HitHigh.Known {
					return cgroup.Value{}
				}
				return s.Memory.HitLimit
			})),
		metric("container_spec_memory_reservation_limit_bytes", "bytes", gauge, "Memory kept for the container, from memory.soft_limit_in_bytes (v1) or memory.min (v2); 0 is none.",
			number(zeroIsNone(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Reservation }))),
		labelled(metric("container_memory_failures_total", "", counter, faultsHelp,
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.OwnFaults })), "failure_type", "pgfault", "scope", "container"),
		labelled(metric("container_memory_failures_total", "", counter, faultsHelp,
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.OwnMajor })), "failure_type", "pgmajfault", "scope", "container"),
		labelled(metric("container_memory_failures_total", "", counter, faultsHelp,
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Faults })), "failure_type", "pgfault", "scope", "hierarchy"),
		labelled(metric("container_memory_failures_total", "", counter, faultsHelp,
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.MajorFaults })), "failure_type", "pgmajfault", "scope", "hierarchy"),
	),
	grouped("oom",
		metric("container_oom_events_total", "", counter, "Processes that the kernel killed for want of memory, from memory.oom_control oom_kill (v1, since Linux 4.13) or memory.events oom_kill (v2).",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.OOMKills })),
		metric("container_memory_events_oom_total", "", counter, "How often usage met the limit and nothing could be reclaimed, whether or not a process was killed, from memory.events oom (v2). Not in cAdvisor.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Memory.OOMs })),
	),
	grouped("process",
		metric("container_processes", "", gauge, "Processes in the container's cgroup itself, counted in cgroup.procs.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Processes })),
		metric("container_threads", "", gauge, "Threads in the container, from pids.current.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Threads })),
		metric("container_threads_max", "", gauge, "Limit of threads, from pids.max; 0 is none.",
			number(zeroIsNone(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Limit }))),
		metric("container_file_descriptors", "", gauge, "Open files of the processes in the container's cgroup itself, from the size of /proc/PID/fd, which is listed before Linux 6.2; absent above 1,000 processes, or above 10,000 files to be listed.",
			number(func(s *cgroup.Stats) cgroup.Value { return s.Pids.Files })),
	),
	grouped("pressure",
		metric("container_pressure_cpu_waiting_seconds_total", "seconds", counter, "Time for which some of the tasks waited for a processor, from cpu.pressure in the unified hierarchy.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Pressure.Some })),
		metric("container_pressure_cpu_stalled_seconds_total", "seconds", counter, "Time for which all of the tasks waited for a processor at once, from cpu.pressure in the unified hierarchy.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Pressure.Full })),
		metric("container_pressure_memory_waiting_seconds_total", "seconds", counter, "Time for which some of the tasks waited for memory, from memory.pressure in the unified hierarchy.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Pressure.Some })),
		metric("container_pressure_memory_stalled_seconds_total", "seconds", counter, "Time for which all of the tasks waited for memory at once, from memory.pressure in the unified hierarchy.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.Memory.Pressure.Full })),
		metric("container_pressure_io_waiting_seconds_total", "seconds", counter, "Time for which some of the tasks waited for I/O, from io.pressure in the unified hierarchy.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.IOPressure.Some })),
		metric("container_pressure_io_stalled_seconds_total", "seconds", counter, "Time for which all of the tasks waited for I/O at once, from io.pressure in the unified hierarchy.",
			seconds(func(s *cgroup.Stats) cgroup.Value { return s.IOPressure.Full })),
	),
)
