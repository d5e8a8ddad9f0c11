package cgroup

import (
	"bytes"
	"fmt"
	"math"
)

// The parsers below read one file each, in the formats of the kernel's Documentation/admin-guide/cgroup-v1 and
// cgroup-v2.rst. They do not allocate unless the text is garbage, pass over lines that they do not know (each kernel
// adds some), and leave in Stats what they could not read unknown.

// number reads a file of one decimal number.
func number(text []byte) (Value, error) {
	n, ok := digits(line(text))
	if !ok {
		return Value{}, garbage(text, "a number")
	}
	return Known(n), nil
}

// limit reads a file of one number or "max".
func limit(text []byte) (Value, error) {
	if string(line(text)) == "max" {
		return Known(Unlimited), nil
	}
	return number(text)
}

// keyed reads "key number" lines. find gives the place for a key's number, or nil when it is of no interest.
func keyed(text []byte, find func(key []byte) *Value) error {
	found := false
	for l := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line(l), []byte{' '})
		v := find(key)
		if v == nil {
			continue
		}
		n, ok := digits(value)
		if !ok {
			return garbage(l, "a key and a number")
		}
		*v, found = Known(n), true
	}
	if !found {
		return garbage(text, "lines with a known key")
	}
	return nil
}

// times turns *v from a coarser unit, which is that many nanoseconds long, into nanoseconds.
func times(v *Value, unit uint64) error {
	if v.N > math.MaxUint64/unit {
		n := v.N
		*v = Value{}
		return fmt.Errorf("%d is no time in units of %d ns", n, unit)
	}
	v.N *= unit
	return nil
}

func line(text []byte) []byte { return bytes.TrimSuffix(text, []byte{'\n'}) }

func digits(text []byte) (n uint64, ok bool) {
	if len(text) == 0 {
		return 0, false
	}
	for _, c := range text {
		d := uint64(c - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

func garbage(text []byte, want string) error {
	const enough = 60
	if len(text) > enough {
		return fmt.Errorf("%q... is not %s", text[:enough], want)
	}
	return fmt.Errorf("%q is not %s", text, want)
}

func countLines(text []byte, s *Stats) error {
	s.Pids.Processes = Known(uint64(bytes.Count(text, []byte{'\n'})))
	return nil
}
