package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// farthest bounds how many routers are asked.
const farthest = 16

// trace sends one datagram to a UDP port for each distance, and gathers what routers answer. What it sends is no VXLAN:
// a kernel that speaks VXLAN there drops it.
func trace(ctx context.Context, to netip.AddrPort) Trace {
	var (
		out  Trace
		at   int
		mu   sync.Mutex
		each sync.WaitGroup
	)
	for hops := 1; hops <= farthest; hops++ {
		each.Go(func() {
			told, ok := ask1(ctx, to, hops)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !ok:
			case told.exceeded && hops > at:
				out.Last, at = told.by, hops
			case told.closed && told.by == to.Addr():
				out.Closed = true
			case told.noWay && isOwn(told.by):
			case told.noWay:
				out.NoWay = told.by
			case !told.exceeded:
				out.Refused = told.by
			}
		})
	}
	each.Wait()
	if out.Closed {
		out.Refused = netip.Addr{}
	}
	return out
}

// isOwn tells whether an address is one of this host's: its kernel speaks then, of a next hop that does not answer.
func isOwn(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(list, func(own net.Addr) bool {
		n, ok := own.(*net.IPNet)
		return ok && n.IP.Equal(a.AsSlice())
	})
}

// told is what a router, or the peer, has said of a datagram.
type told struct {
	by       netip.Addr
	exceeded bool // its time to live, there
	closed   bool // the port
	noWay    bool // to the host, or its network
}

// ask1 sends one datagram that gets as far as a number of hops.
func ask1(ctx context.Context, to netip.AddrPort, hops int) (t told, ok bool) {
	network, level, limit, tells := "udp4", unix.SOL_IP, unix.IP_TTL, unix.IP_RECVERR
	if to.Addr().Is6() {
		network, level, limit, tells = "udp6", unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVERR
	}
	d := net.Dialer{Control: func(network, address string, raw syscall.RawConn) error {
		if err := option(level, limit, hops)(network, address, raw); err != nil {
			return err
		}
		return option(level, tells, 1)(network, address, raw)
	}}
	c, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return told{}, false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(make([]byte, 8)); err != nil {
		return told{}, false
	}
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return told{}, false
	}
	// An error that has come makes the socket readable.
	_ = raw.Read(func(fd uintptr) bool {
		oob := make([]byte, 256)
		_, n, _, _, err := unix.Recvmsg(int(fd), make([]byte, 64), oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return false
		}
		t, ok = readTold(oob[:n])
		return true
	})
	return t, ok
}

// readTold reads a struct sock_extended_err and who sent it (ip(7), IP_RECVERR; ipv6(7), IPV6_RECVERR).
func readTold(oob []byte) (told, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return told{}, false
	}
	const errLen = int(unsafe.Sizeof(unix.SockExtendedErr{}))
	for _, m := range messages {
		four := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR && len(m.Data) >= errLen+unix.SizeofSockaddrInet4
		six := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR && len(m.Data) >= errLen+unix.SizeofSockaddrInet6
		if !four && !six {
			continue
		}
		e, from := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0])), m.Data[errLen:]
		switch {
		case four && e.Origin == unix.SO_EE_ORIGIN_ICMP:
			no := e.Type == unreachable
			return told{
				by: netip.AddrFrom4([4]byte(from[4:8])), exceeded: e.Type == timeExceeded,
				closed: no && e.Code == portCode, noWay: no && e.Code <= hostCode,
			}, true
		case six && e.Origin == unix.SO_EE_ORIGIN_ICMP6:
			no := e.Type == unreachable6
			return told{
				by: netip.AddrFrom16([16]byte(from[8:24])), exceeded: e.Type == timeExceeded6,
				closed: no && e.Code == portCode6, noWay: no && (e.Code == noRouteCode6 || e.Code == addressCode6),
			}, true
		}
		return told{}, false
	}
	return told{}, false
}

// Of ICMP (RFC 792).
const (
	unreachable  = 3
	timeExceeded = 11
	hostCode     = 1
	portCode     = 3
)

// Of ICMPv6 (RFC 4443).
const (
	unreachable6  = 1
	timeExceeded6 = 3
	noRouteCode6  = 0
	addressCode6  = 3
	portCode6     = 4
)
