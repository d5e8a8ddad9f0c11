package cgroup

import "bytes"

var (
	v1CPUSet = []format{
		{name: "cpuset.effective_cpus", parse: func(b []byte, s *Stats) (err error) { s.CPU.Allowed, err = listed(b); return err }},
		{name: "cpuset.memory_migrate", limit: true, parse: func(b []byte, s *Stats) (err error) { s.Memory.Migrate, err = number(b); return err }},
	}
	v2CPUSet = []format{
		{name: "cpuset.cpus.effective", parse: func(b []byte, s *Stats) (err error) { s.CPU.Allowed, err = listed(b); return err }},
	}
)

// listed counts the members of the kernel's list form: "0-3,8" has five.
func listed(text []byte) (Value, error) {
	if len(line(text)) == 0 {
		return Value{}, garbage(text, "a list of processors")
	}
	n := uint64(0)
	for rest := line(text); len(rest) > 0; {
		var part []byte
		part, rest, _ = bytes.Cut(rest, []byte{','})
		from, to, isRange := bytes.Cut(part, []byte{'-'})
		a, ok := digits(from)
		b, ok2 := a, true
		if isRange {
			b, ok2 = digits(to)
		}
		if !ok || !ok2 || b < a || b-a >= 1<<20 {
			return Value{}, garbage(text, "a list of processors")
		}
		n += b - a + 1
	}
	return Known(n), nil
}
