// Package cgroup reads what the kernel counts for one container: CPU, memory and pids, on cgroup v1, v2 and hybrid
// hosts alike, at the moment it is asked.
//
//	host.Membership ─┐
//	host.Hierarchies ┴─ Tree.Reader ─> files, each with its parser ─> Reader.Read ─> Stats
//
// A Reader keeps its files open while the descriptor budget allows and reads them with pread from offset 0: kernfs then
// makes the text anew, and a scrape costs a quarter of what open, read and close cost. It owns those descriptors only;
// after a crash there is nothing to bring back.
package cgroup

import "errors"

// ErrGone says that the cgroup was removed. There is nothing more to read in it, now or later.
var ErrGone = errors.New("cgroup is gone")

// Unlimited is the value of a limit that the kernel shows as "max".
const Unlimited = 1<<64 - 1

// Value is a number that may be unknown: a file or a line that is not there gives an unknown value, never a zero.
type Value struct {
	N     uint64
	Known bool
}

// Known gives the known value n.
func Known(n uint64) Value { return Value{N: n, Known: true} }

// Stats is what one cgroup shows. Times are nanoseconds, sizes bytes, whatever the unit of the kernel's file.
type Stats struct {
	CPU        CPU
	Memory     Memory
	Pids       Pids
	IO         []Device // those that the cgroup has used
	IOPressure Pressure
	Huge       []Huge // by page size
	NUMA       []NodePages
}

// reset makes everything unknown and keeps the memory of the lists.
func (s *Stats) reset() { *s = Stats{IO: s.IO[:0], Huge: s.Huge[:0], NUMA: s.NUMA[:0]} }

// CPU is time used and the limits on it.
type CPU struct {
	Usage, User, System       Value // nanoseconds
	Periods, ThrottledPeriods Value // enforcement periods, and those in which the cgroup was stopped
	Throttled                 Value // nanoseconds
	Bursts, Burst             Value // periods in which more than the quota was used, and nanoseconds beyond it
	Quota, Period             Value // microseconds; Quota is unknown where there is none
	Shares                    Value // v1 shares; a v2 weight is converted as the runtimes convert it
	Allowed                   Value // processors that it may run on
	Pressure                  Pressure
}

// Memory is what the cgroup holds and may hold. Usage counts everything; RSS, Cache, Mapped and the rest are parts of it.
type Memory struct {
	Usage, MaxUsage          Value
	RSS, Cache, Mapped, Swap Value
	ActiveFile, InactiveFile Value
	Limit                    Value // Unlimited, or v1's 0x7ffffffffffff000, is none
	SwapLimit                Value // v1: memory and swap together; v2: swap alone
	HitLimit                 Value // how often usage met the limit: v1 memory.failcnt, v2 memory.events max
	HitHigh                  Value // how often usage met memory.high (v2)
	Reservation              Value // v1 soft limit, v2 memory.min
	UnderOOM                 Value // v1: 1 while its processes wait for memory because the kernel may not kill any
	OOMs                     Value // how often the limit was met and nothing could be reclaimed (v2), whether or not anything was killed
	OOMKills                 Value // processes that the kernel killed in this cgroup for want of memory
	Kernel                   Value // what the kernel holds for it
	Shmem, Unevictable       Value
	AnonHuge                 Value // anonymous memory in transparent huge pages
	ActiveAnon, InactiveAnon Value
	Dirty, Writeback         Value // file pages not yet written, and being written
	Faults, MajorFaults      Value // page faults of the cgroup with all below it
	OwnFaults, OwnMajor      Value // v1: of the cgroup alone
	RefaultFile, RefaultAnon Value // pages that came back soon after they were taken
	Scanned, Stolen          Value // pages that reclaim looked at, and took (v2)
	Migrate                  Value // v1 cpuset.memory_migrate
	Pressure                 Pressure
}

// WorkingSet is the usage without file pages that nobody used lately: what the kernel cannot easily take back, and
// what the kubelet evicts by.
func (m *Memory) WorkingSet() Value {
	if !m.Usage.Known || !m.InactiveFile.Known {
		return m.Usage
	}
	return Known(m.Usage.N - min(m.Usage.N, m.InactiveFile.N))
}

// Pids counts tasks. The kernel's pids controller counts threads; Processes counts thread groups.
type Pids struct {
	Threads   Value
	Limit     Value // Unlimited where there is none
	Processes Value
	Files     Value // open files of the processes; see Tree.CountFiles
	Sockets   Value // those of them that are sockets; see Tree.CountSockets
}
