package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Examine asks a peer once by every path, and fills in what known does not say yet. underlay is the size of packets on
// the underlay, in bytes. It sends some dozens of packets and blocks for some seconds, when much is lost.
func Examine(ctx context.Context, p Peer, known Facts, underlay int) (Facts, error) {
	c, err := Dial()
	if err != nil {
		return known, err
	}
	defer c.Close()
	hops := p.Hops
	echoes := []*Echo{&known.Ways[VXLAN], &known.Ways[Direct], &known.Underlay}
	ways := []Hop{hops[VXLAN], hops[Direct], {To: known.Address, Full: underlay}}
	for i, w := range ways {
		echoes[i].Tried, echoes[i].Size = w.Full > 0 && w.To.Is4(), w.Full
	}
	e := exchange{conn: c}
	if err := e.sizes(ctx, ways, echoes); err != nil {
		return known, err
	}
	if known.Address.Is6() {
		known.Underlay.Tried, known.Underlay.Small = true, answers6(known.Address)
	}
	used := hops[known.Used]
	known.UDP = known.Ways[known.Used].Small && udpArrives(ctx, used.From, used.To)
	if !known.Ways[VXLAN].Small && known.Ways[VXLAN].Tried {
		known.Trace = trace(ctx, netip.AddrPortFrom(known.Address, known.Port))
	}
	return known, ctx.Err()
}

// exchange sends probes and gathers answers.
type exchange struct {
	conn   *Conn
	number uint32
}

// sizes fills in echoes, each of the way at its place.
func (e *exchange) sizes(ctx context.Context, ways []Hop, echoes []*Echo) error {
	var shots []Shot
	what := map[uint32]func(time.Duration){}
	ask := func(i, size int, answered func(rtt time.Duration)) {
		e.number++
		shots, what[e.number] = append(shots, Shot{e.number, ways[i], size}), answered
	}
	for i, echo := range echoes {
		for range 2 { // one may be lost
			if echo.Tried {
				ask(i, small, func(rtt time.Duration) { echo.Small, echo.RTT, echo.MTU = true, rtt, max(echo.MTU, least) })
				ask(i, echo.Size, func(time.Duration) { echo.Full, echo.MTU = true, echo.Size })
			}
		}
	}
	if err := e.send(ctx, shots, func(n uint32, rtt time.Duration) { what[n](rtt) }); err != nil {
		return err
	}
	for i, echo := range echoes {
		if echo.Small && !echo.Full {
			if err := e.narrow(ctx, ways[i], echo); err != nil {
				return err
			}
		}
	}
	return nil
}

// narrow looks for the largest size that passes.
func (e *exchange) narrow(ctx context.Context, w Hop, echo *Echo) error {
	s := search{lo: least, hi: echo.Size}
	for range 6 {
		asks, size := s.begin(), map[uint32]int{}
		var shots []Shot
		for _, a := range asks {
			e.number++
			shots, size[e.number] = append(shots, Shot{e.number, w, a.size}), a.size
		}
		passed := map[int]bool{}
		if err := e.send(ctx, shots, func(n uint32, _ time.Duration) { passed[size[n]] = true }); err != nil {
			return err
		}
		for _, a := range asks {
			s.result(a.size, passed[a.size])
		}
		if done, whole := s.next(); done && whole {
			break
		}
	}
	echo.MTU = s.lo
	return nil
}

// send sends shots and calls heard with each answer, until all have come or patience ends.
func (e *exchange) send(ctx context.Context, shots []Shot, heard func(number uint32, rtt time.Duration)) error {
	sent := map[uint32]time.Time{}
	for _, s := range shots {
		began := time.Now()
		if err := e.conn.Send(s); err == nil { // too large for the device: it does not pass
			sent[s.Number] = began
		}
	}
	for deadline := time.Now().Add(patience); len(sent) > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		err := e.conn.Hear(deadline, func(h Heard) {
			if began, ok := sent[h.Number]; ok {
				delete(sent, h.Number)
				heard(h.Number, max(h.At.Sub(began), 0))
			}
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// udpArrives tells whether a datagram comes to the peer whole: its kernel refuses one to the port of probes (package
// plan, rule RefuseProbe), and drops one whose checksum is wrong.
func udpArrives(ctx context.Context, from, to netip.Addr) bool {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Control: option(unix.SOL_IP, unix.IP_TTL, hopLimit)}
	for range 3 {
		conn, err := d.DialContext(ctx, "udp4", netip.AddrPortFrom(to, plan.ProbePort).String())
		if err != nil {
			return false
		}
		_ = conn.SetDeadline(time.Now().Add(patience / 2))
		_, err = conn.Write([]byte("fairlead net check"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		_ = conn.Close()
		if errors.Is(err, unix.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// option sets a socket's option before it is used.
func option(level, name, value int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var fault error
		err := raw.Control(func(fd uintptr) { fault = unix.SetsockoptInt(int(fd), level, name, value) })
		if err := errors.Join(err, fault); err != nil {
			return fmt.Errorf("set socket option %d: %w", name, err)
		}
		return nil
	}
}
