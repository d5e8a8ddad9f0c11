package cgroup

import "bytes"

// Op is what was done to a block device, in v1's words.
type Op int

// The operations. v2 knows Read, Write and Discard only. Total is the sum of Read, Write and Discard, and of Sync and
// Async likewise.
const (
	Read Op = iota
	Write
	Sync
	Async
	Discard
	Total
	ops
)

var opNames = [ops]string{"Read", "Write", "Sync", "Async", "Discard", "Total"}

func (o Op) String() string { return opNames[o] }

// Ops gives every Op.
func Ops() []Op { return []Op{Read, Write, Sync, Async, Discard, Total} }

// Device is what the cgroup did to one block device. A device that it never touched has no entry.
type Device struct {
	Major, Minor uint32
	Bytes, Done  [ops]Value
	// What io.latency promises and what the device then takes (v2, where somebody has set it), in nanoseconds.
	LatencyTarget, Latency Value
}

// device gives the entry of one device, made on first use. The pointer is valid until the next call.
func (s *Stats) device(major, minor uint32) *Device {
	for i := range s.IO {
		if d := &s.IO[i]; d.Major == major && d.Minor == minor {
			return d
		}
	}
	s.IO = append(s.IO, Device{Major: major, Minor: minor})
	return &s.IO[len(s.IO)-1]
}

// v1IO are the counters of the throttling layer, which sees every request whatever the scheduler of the device is. The
// bfq files, which cAdvisor asks first, count only on devices that bfq schedules.
//
// The kernel counts a request's bytes before it counts the request (blk_should_throtl in block/blk-throttle.h): while no
// request came, no bytes did.
var v1IO = []format{
	{name: "blkio.throttle.io_serviced_recursive", long: true, parse: func(b []byte, s *Stats) error {
		return parseIOV1(b, s, func(d *Device) *[ops]Value { return &d.Done })
	}},
	{name: "blkio.throttle.io_service_bytes_recursive", long: true, follows: true, parse: func(b []byte, s *Stats) error {
		return parseIOV1(b, s, func(d *Device) *[ops]Value { return &d.Bytes })
	}},
}

var v2IO = []format{
	{name: "io.stat", long: true, parse: parseIOV2},
	{name: "io.latency", long: true, limit: true, parse: parseIOLatency},
}

// parseIOV1 reads "MAJOR:MINOR Operation NUMBER" lines; the last line is the sum over all devices.
func parseIOV1(text []byte, s *Stats, of func(*Device) *[ops]Value) error {
	for l := range bytes.Lines(text) {
		dev, rest, _ := bytes.Cut(line(l), []byte{' '})
		op, value, ok := bytes.Cut(rest, []byte{' '})
		if !ok && string(dev) == "Total" {
			continue
		}
		major, minor, ok := deviceNumber(dev)
		n, ok2 := digits(value)
		if !ok || !ok2 {
			return garbage(l, "a device, an operation and a number")
		}
		for o, name := range opNames {
			if string(op) == name {
				of(s.device(major, minor))[o] = Known(n)
			}
		}
	}
	return nil
}

// parseIOV2 reads "MAJOR:MINOR key=NUMBER ..." lines. Some kernels show a device without keys before its first request.
func parseIOV2(text []byte, s *Stats) error {
	for l := range bytes.Lines(text) {
		dev, rest, _ := bytes.Cut(line(l), []byte{' '})
		major, minor, ok := deviceNumber(dev)
		if !ok {
			return garbage(l, "a device and its counters")
		}
		for f := range bytes.FieldsSeq(rest) {
			key, value, _ := bytes.Cut(f, []byte{'='})
			if len(key) == 0 {
				continue
			}
			var v *Value
			switch string(key) {
			case "rbytes":
				v = &s.device(major, minor).Bytes[Read]
			case "wbytes":
				v = &s.device(major, minor).Bytes[Write]
			case "dbytes":
				v = &s.device(major, minor).Bytes[Discard]
			case "rios":
				v = &s.device(major, minor).Done[Read]
			case "wios":
				v = &s.device(major, minor).Done[Write]
			case "dios":
				v = &s.device(major, minor).Done[Discard]
			case "avg_lat": // of the io.latency controller, in microseconds
				v = &s.device(major, minor).Latency
			default:
				continue
			}
			n, ok := digits(value)
			if !ok {
				return garbage(f, "a key and a number")
			}
			*v = Known(n)
			if string(key) == "avg_lat" {
				if err := times(v, 1000); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// parseIOLatency reads "MAJOR:MINOR target=MICROSECONDS" lines.
func parseIOLatency(text []byte, s *Stats) error {
	for l := range bytes.Lines(text) {
		dev, rest, _ := bytes.Cut(line(l), []byte{' '})
		major, minor, ok := deviceNumber(dev)
		value, is := bytes.CutPrefix(rest, []byte("target="))
		n, ok2 := digits(value)
		if !ok || !is || !ok2 {
			return garbage(l, "a device and its target")
		}
		v := &s.device(major, minor).LatencyTarget
		*v = Known(n)
		if err := times(v, 1000); err != nil {
			return err
		}
	}
	return nil
}

func deviceNumber(text []byte) (major, minor uint32, ok bool) {
	a, b, _ := bytes.Cut(text, []byte{':'})
	x, ok1 := digits(a)
	y, ok2 := digits(b)
	if !ok1 || !ok2 || x > 1<<32-1 || y > 1<<32-1 {
		return 0, 0, false
	}
	return uint32(x), uint32(y), true
}
