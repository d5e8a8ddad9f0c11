package cgroup

import "bytes"

// Pressure is how long work stood still for want of a resource, in nanoseconds: some of the tasks, or all of them at
// once (the kernel's Documentation/accounting/psi.rst).
type Pressure struct{ Some, Full Value }

// pressure are files of the unified hierarchy, with or without the controller: on a hybrid host too they tell about a
// container that has a cgroup there. A kernel with psi=0 has none; where cgroup.pressure is 0 they cannot be read.
var pressure = []format{
	{name: "cpu.pressure", parse: func(b []byte, s *Stats) error { return parsePressure(b, &s.CPU.Pressure) }},
	{name: "memory.pressure", parse: func(b []byte, s *Stats) error { return parsePressure(b, &s.Memory.Pressure) }},
	{name: "io.pressure", parse: func(b []byte, s *Stats) error { return parsePressure(b, &s.IOPressure) }},
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS" and the same for full, which
// cpu.pressure has since Linux 5.13.
func parsePressure(text []byte, p *Pressure) error {
	found := false
	for l := range bytes.Lines(text) {
		kind, rest, _ := bytes.Cut(line(l), []byte{' '})
		var v *Value
		switch string(kind) {
		case "some":
			v = &p.Some
		case "full":
			v = &p.Full
		default:
			continue
		}
		at := bytes.LastIndex(rest, []byte("total="))
		if at < 0 {
			return garbage(l, "a line of pressure")
		}
		n, ok := digits(rest[at+len("total="):])
		if !ok {
			return garbage(l, "a line of pressure")
		}
		*v, found = Known(n), true
		if err := times(v, 1000); err != nil {
			return err
		}
	}
	if !found {
		return garbage(text, "lines of pressure")
	}
	return nil
}
