package linkstat

import (
	"bytes"
	"fmt"
	"strconv"
)

// ParseNetDev reads the text of /proc/PID/net/dev and calls visit for each interface but loopback; name is valid during
// the call only. After an error, what was visited before it is still true.
func ParseNetDev(text []byte, visit func(name []byte, c Counters)) error {
	n := 0
	for line := range bytes.Lines(text) {
		if n++; n <= 2 { // two lines of headings
			continue
		}
		name, rest, ok := bytes.Cut(line, []byte{':'})
		name = bytes.TrimSpace(name)
		var v [16]uint64
		if !ok || len(name) == 0 || !numbers(rest, v[:]) {
			return fmt.Errorf("line %d %q is no interface with 16 counters", n, line)
		}
		if string(name) == "lo" {
			continue
		}
		visit(name, Counters{
			RxBytes: v[0], RxPackets: v[1], RxErrors: v[2], RxDropped: v[3],
			TxBytes: v[8], TxPackets: v[9], TxErrors: v[10], TxDropped: v[11],
		})
	}
	if n < 2 {
		return fmt.Errorf("%d lines are no net/dev table", n)
	}
	return nil
}

// ParseMulticast reads the text of /proc/PID/net/dev_mcast, the one table that gives names by index: the key is the
// interface's index in its own namespace. Only interfaces with a multicast address are in it: those that are up.
func ParseMulticast(text []byte) map[int]string {
	out := map[int]string{}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		if i, err := strconv.Atoi(string(f[0])); err == nil && i > 0 {
			out[i] = string(f[1])
		}
	}
	return out
}

func numbers(text []byte, into []uint64) bool {
	i := 0
	for f := range bytes.FieldsSeq(text) {
		if i == len(into) {
			return false
		}
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return false
		}
		into[i] = n
		i++
	}
	return i == len(into)
}
