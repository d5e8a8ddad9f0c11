package cgroup

import (
	"bytes"
	"errors"
)

// The files of each v2 controller.
var (
	v2CPU = []format{
		{name: "cpu.stat", parse: parseCPUStatV2},
		{name: "cpu.max", limit: true, parse: parseCPUMax},
		{name: "cpu.weight", limit: true, parse: parseWeight},
	}
	v2Memory = []format{
		{name: "memory.current", parse: func(b []byte, s *Stats) (err error) { s.Memory.Usage, err = number(b); return err }},
		{name: "memory.stat", parse: parseMemoryStatV2},
		{name: "memory.max", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.Limit, err = limit(b); return err }},
		{name: "memory.peak", parse: func(b []byte, s *Stats) (err error) { s.Memory.MaxUsage, err = number(b); return err }}, // since 5.19
		{name: "memory.swap.current", parse: func(b []byte, s *Stats) (err error) { s.Memory.Swap, err = number(b); return err }},
		{name: "memory.swap.max", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.SwapLimit, err = limit(b); return err }},
		{name: "memory.min", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.Reservation, err = limit(b); return err }},
		{name: "memory.events", parse: parseMemoryEvents},
	}
)

// parseCPUStatV2 reads cpu.stat. Its usage lines are there even where the cpu controller is off; the throttling lines
// only where it is on.
func parseCPUStatV2(text []byte, s *Stats) error {
	c := &s.CPU
	err := keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "usage_usec":
			return &c.Usage
		case "user_usec":
			return &c.User
		case "system_usec":
			return &c.System
		case "nr_periods":
			return &c.Periods
		case "nr_throttled":
			return &c.ThrottledPeriods
		case "throttled_usec":
			return &c.Throttled
		case "nr_bursts":
			return &c.Bursts
		case "burst_usec":
			return &c.Burst
		}
		return nil
	})
	for _, v := range [...]*Value{&c.Usage, &c.User, &c.System, &c.Throttled, &c.Burst} {
		if bad := times(v, 1000); bad != nil {
			err = errors.Join(err, bad)
		}
	}
	return err
}

// parseCPUMax reads "QUOTA PERIOD", where QUOTA may be "max".
func parseCPUMax(text []byte, s *Stats) error {
	quota, period, _ := bytes.Cut(line(text), []byte{' '})
	p, ok := digits(period)
	if !ok {
		return garbage(text, "a quota and a period")
	}
	if string(quota) != "max" {
		q, ok := digits(quota)
		if !ok {
			return garbage(text, "a quota and a period")
		}
		s.CPU.Quota = Known(q)
	}
	s.CPU.Period = Known(p)
	return nil
}

// parseWeight turns a weight of 1 to 10000 into the shares of 2 to 262144 that a runtime was asked for: the inverse of
// the line by which runc, crun and systemd map shares to weights. Rounding loses a few shares on the way.
func parseWeight(text []byte, s *Stats) error {
	w, ok := digits(line(text))
	if !ok || w > 10000 {
		return garbage(text, "a weight between 0 and 10000")
	}
	if w > 0 { // 0 is an idle cgroup (cpu.idle), which has no shares to speak of
		s.CPU.Shares = Known(2 + (w-1)*262142/9999)
	}
	return nil
}

// parseMemoryStatV2 reads memory.stat, whose numbers count sub-cgroups too. cAdvisor shows them as those of the container
// alone as well, because v2 has no others.
func parseMemoryStatV2(text []byte, s *Stats) error {
	m := &s.Memory
	defer func() { m.OwnFaults, m.OwnMajor = m.Faults, m.MajorFaults }()
	return keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "file":
			return &m.Cache
		case "anon":
			return &m.RSS
		case "file_mapped":
			return &m.Mapped
		case "active_file":
			return &m.ActiveFile
		case "inactive_file":
			return &m.InactiveFile
		case "active_anon":
			return &m.ActiveAnon
		case "inactive_anon":
			return &m.InactiveAnon
		case "anon_thp":
			return &m.AnonHuge
		case "shmem":
			return &m.Shmem
		case "unevictable":
			return &m.Unevictable
		case "kernel": // since 5.18
			return &m.Kernel
		case "file_dirty":
			return &m.Dirty
		case "file_writeback":
			return &m.Writeback
		case "pgfault":
			return &m.Faults
		case "pgmajfault":
			return &m.MajorFaults
		case "workingset_refault_file":
			return &m.RefaultFile
		case "workingset_refault_anon":
			return &m.RefaultAnon
		case "pgscan":
			return &m.Scanned
		case "pgsteal":
			return &m.Stolen
		}
		return nil
	})
}

func parseMemoryEvents(text []byte, s *Stats) error {
	return keyed(text, func(key []byte) *Value {
		switch string(key) {
		case "max":
			return &s.Memory.HitLimit
		case "high":
			return &s.Memory.HitHigh
		case "oom":
			return &s.Memory.OOMs
		case "oom_kill":
			return &s.Memory.OOMKills
		}
		return nil
	})
}
