package syslog

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// States of proc_net_tcp as linux/tcp_states.h numbers them.
const (
	finWait2 = 5
	timeWait = 6
)

// Confirm looks for the connection that proof names. When a process is killed, the kernel goes on sending what was
// written and then its own FIN; FIN_WAIT2 and TIME_WAIT mean that the peer has acknowledged that FIN, and so every byte
// before it. Both states stay for a minute. A connection that was reset is in neither, and neither is one that is not
// there any more: then nobody knows, and the batch is sent again.
func (s *Sink) Confirm(ctx context.Context, proof string) bool {
	local, remote, _ := strings.Cut(proof, " ")
	l, err1 := netip.ParseAddrPort(local)
	r, err2 := netip.ParseAddrPort(remote)
	if err1 != nil || err2 != nil {
		return false
	}
	for end := time.Now().Add(2 * time.Second); ; {
		state, found := tcpState(l, r)
		if !found || time.Now().After(end) {
			return false
		}
		if state == finWait2 || state == timeWait {
			return true
		}
		select { // the bytes are still on their way
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
}

// tcpState finds a connection of this network namespace.
func tcpState(local, remote netip.AddrPort) (state int, found bool) {
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue // no IPv6 here
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 3 && hexAddr(fields[1]) == local && hexAddr(fields[2]) == remote {
				n, err := strconv.ParseUint(fields[3], 16, 8)
				return int(n), err == nil
			}
		}
	}
	return 0, false
}

// hexAddr reads 0100007F:0259: words of an address in the order of this machine, the port as a number.
func hexAddr(s string) netip.AddrPort {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n))
}
