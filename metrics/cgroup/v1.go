package cgroup

import "errors"

// tick is the unit of cpuacct.stat: USER_HZ is 100 on every Linux architecture that runs containers.
const tick = 10_000_000

// The files of each v1 controller.
var (
	v1CPUAcct = []format{
		{name: "cpuacct.usage", parse: func(b []byte, s *Stats) (err error) { s.CPU.Usage, err = number(b); return err }},
		{name: "cpuacct.stat", follows: true, parse: parseCPUAcctStat}, // the usage, divided up
	}
	v1CPU = []format{
		{name: "cpu.stat", parse: parseCPUStatV1},
		{name: "cpu.cfs_quota_us", limit: true, parse: parseQuotaV1},
		{name: "cpu.cfs_period_us", limit: true, parse: func(b []byte, s *Stats) (err error) { s.CPU.Period, err = number(b); return err }},
		{name: "cpu.shares", limit: true, parse: func(b []byte, s *Stats) (err error) { s.CPU.Shares, err = number(b); return err }},
	}
	v1Memory = []format{
		{name: "memory.usage_in_bytes", parse: func(b []byte, s *Stats) (err error) { s.Memory.Usage, err = number(b); return err }},
		{name: "memory.stat", parse: parseMemoryStatV1},
		{name: "memory.limit_in_bytes", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.Limit, err = number(b); return err }},
		{name: "memory.memsw.limit_in_bytes", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.SwapLimit, err = number(b); return err }},
		{name: "memory.max_usage_in_bytes", parse: func(b []byte, s *Stats) (err error) { s.Memory.MaxUsage, err = number(b); return err }},
		{name: "memory.kmem.usage_in_bytes", parse: func(b []byte, s *Stats) (err error) { s.Memory.Kernel, err = number(b); return err }},
		{name: "memory.soft_limit_in_bytes", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.Reservation, err = number(b); return err }},
		{name: "memory.oom_control", parse: parseOOMControl},
		{name: "memory.failcnt", parse: func(b []byte, s *Stats) (err error) { s.Memory.HitLimit, err = number(b); return err }},
	}
)

// The pids controller has the same files in v1 and v2.
var pids = []format{
	{name: "pids.current", parse: func(b []byte, s *Stats) (err error) { s.Pids.Threads, err = number(b); return err }},
	{name: "pids.max", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Pids.Limit, err = limit(b); return err }},
}

var procs = []format{{name: "cgroup.procs", parse: countLines, long: true, pids: true}}

// parseCPUAcctStat takes user and system time from cpuacct.stat rather than from cpuacct.usage_user and _sys: those are
// sampled at ticks, this one is scaled to the exact runtime (kernel/sched/cputime.c, cputime_adjust).
func parseCPUAcctStat(text []byte, s *Stats) error {
	err := keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "user":
			return &s.CPU.User
		case "system":
			return &s.CPU.System
		}
		return nil
	})
	return errors.Join(err, times(&s.CPU.User, tick), times(&s.CPU.System, tick))
}

func parseCPUStatV1(text []byte, s *Stats) error {
	return keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "nr_periods":
			return &s.CPU.Periods
		case "nr_throttled":
			return &s.CPU.ThrottledPeriods
		case "throttled_time":
			return &s.CPU.Throttled
		case "nr_bursts":
			return &s.CPU.Bursts
		case "burst_time":
			return &s.CPU.Burst
		}
		return nil
	})
}

func parseQuotaV1(text []byte, s *Stats) (err error) {
	if string(line(text)) == "-1" {
		return nil // no quota
	}
	s.CPU.Quota, err = number(text)
	return err
}

// parseMemoryStatV1 takes the hierarchical numbers, which count sub-cgroups as memory.usage_in_bytes does.
func parseMemoryStatV1(text []byte, s *Stats) error {
	m := &s.Memory
	return keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "total_cache":
			return &m.Cache
		case "total_rss":
			return &m.RSS
		case "total_mapped_file":
			return &m.Mapped
		case "total_swap":
			return &m.Swap
		case "total_active_file":
			return &m.ActiveFile
		case "total_inactive_file":
			return &m.InactiveFile
		case "total_active_anon":
			return &m.ActiveAnon
		case "total_inactive_anon":
			return &m.InactiveAnon
		case "total_rss_huge":
			return &m.AnonHuge
		case "total_shmem":
			return &m.Shmem
		case "total_unevictable":
			return &m.Unevictable
		case "total_dirty":
			return &m.Dirty
		case "total_writeback":
			return &m.Writeback
		case "pgfault":
			return &m.OwnFaults
		case "pgmajfault":
			return &m.OwnMajor
		case "total_pgfault":
			return &m.Faults
		case "total_pgmajfault":
			return &m.MajorFaults
		case "total_workingset_refault_file":
			return &m.RefaultFile
		case "total_workingset_refault_anon":
			return &m.RefaultAnon
		}
		return nil
	})
}

// parseOOMControl takes the kills, which the file tells since Linux 4.13.
func parseOOMControl(text []byte, s *Stats) error {
	return keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "oom_kill":
			return &s.Memory.OOMKills
		case "under_oom":
			return &s.Memory.UnderOOM
		}
		return nil
	})
}
