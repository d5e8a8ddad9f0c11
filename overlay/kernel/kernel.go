// Package kernel is the one place where the overlay touches the kernel: it observes what is there and applies the
// steps that package plan decided. It holds netlink sockets and no other state; whoever opens a Conn after a crash
// sees what the last one left.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/cni-plugin/crash"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Conn speaks to the kernel of the network namespace that Open was called in. Its methods are safe for concurrent
// use; the kernel itself takes one change of links at a time (RTNL).
type Conn struct {
	root  host.Root
	nl    *netlink.Handle
	table tableConn
}

// Open makes a Conn. Close it when done.
func Open(root host.Root) (*Conn, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Conn{root: root, nl: h}, nil
}

// Close ends the Conn.
func (c *Conn) Close() {
	c.nl.Close()
	c.table.close()
}

// Apply does the steps in order and stops at the first that fails; the error names it as the command it stands for.
// It blocks for the kernel, which is some milliseconds for a link.
func (c *Conn) Apply(ctx context.Context, steps []plan.Step) error {
	a := applier{conn: c, nl: c.nl, index: map[string]int{}}
	return a.apply(ctx, steps)
}

// applier does steps in one namespace. It knows the index of each device it has met.
type applier struct {
	conn  *Conn
	nl    *netlink.Handle
	ns    *plan.Namespace // nil: the host's
	visit *Visit          // of the namespace that is entered next, or nil
	index map[string]int
}

func (a *applier) apply(ctx context.Context, steps []plan.Step) error {
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s, context.Cause(ctx))
		}
		if err := a.do(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		crash.Step(s)
	}
	return nil
}

func (a *applier) do(ctx context.Context, s plan.Step) error {
	switch s := s.(type) {
	case plan.AddVeth:
		return a.addVeth(s)
	case plan.AddLink:
		return a.addVXLAN(s)
	case plan.SetLink:
		return a.setLink(s)
	case plan.AwaitUp:
		return a.awaitUp(ctx, s.Name)
	case plan.SetAlias:
		return a.onLink(s.Name, func(l netlink.Link) error { return a.nl.LinkSetAlias(l, s.Alias) })
	case plan.RetireLink:
		return gone(a.onLink(s.Name, func(l netlink.Link) error { return a.nl.LinkSetGroup(l, plan.RetiredGroup) }))
	case plan.DeleteRetired:
		return deleteGroup(plan.RetiredGroup)
	case plan.DeleteLink:
		return gone(a.onLink(s.Name, a.nl.LinkDel))
	case plan.AddAddr:
		return a.onLink(s.Dev, func(l netlink.Link) error { return a.addAddr(l, s.Prefix) })
	case plan.DeleteAddr:
		return gone(a.onLink(s.Dev, func(l netlink.Link) error { return a.nl.AddrDel(l, address(s.Prefix)) }))
	case plan.ReplaceRoute:
		return a.withRoute(s.Route, a.nl.RouteReplace)
	case plan.DeleteRoute:
		return gone(a.withRoute(s.Route, a.nl.RouteDel))
	case plan.ReplaceNeigh:
		return a.withNeigh(s.Neigh, a.nl.NeighSet)
	case plan.DeleteNeigh:
		return gone(a.withNeigh(s.Neigh, a.nl.NeighDel))
	case plan.ReplaceFDB:
		return a.withFDB(s.FDB, a.nl.NeighSet)
	case plan.DeleteFDB:
		return gone(a.withFDB(s.FDB, a.nl.NeighDel))
	case plan.SetSysctl:
		return a.conn.setSysctl(s.Key, s.Value)
	case plan.ReplaceTable:
		return replaceTable(s.Table)
	case plan.Admit:
		return a.conn.table.admit(s.Elements)
	case plan.Dismiss:
		return gone(a.conn.table.dismiss(s.Elements))
	case plan.ForgetFlows:
		return forgetFlows(s.Flows)
	case plan.SetLinkSysctl:
		return a.conn.setLinkSysctl(s)
	case plan.Inside:
		return a.inside(ctx, s)
	}
	return fmt.Errorf("unknown step %T", s)
}

// inside runs steps with a netlink socket of the container's namespace.
func (a *applier) inside(ctx context.Context, s plan.Inside) error {
	v := a.visit
	if v == nil || v.ns.FD != s.NS.FD {
		var err error
		if v, err = a.conn.Visit(s.NS); err != nil {
			return err
		}
		defer v.Close()
	}
	inner := applier{conn: a.conn, nl: v.nl, ns: &s.NS, index: map[string]int{"lo": 1}} // lo is the first of every namespace
	return inner.apply(ctx, s.Steps)
}

func (a *applier) addVeth(s plan.AddVeth) error {
	v := &netlink.Veth{
		LinkAttrs:        attrs(s.Link),
		PeerName:         s.Peer,
		PeerHardwareAddr: s.PeerMAC[:],
		PeerNamespace:    netlink.NsFd(s.NS.FD),
		PeerTxQLen:       -1,
	}
	err := a.nl.LinkAdd(v)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s is already in %s, or %s on the host: %w", s.Peer, s.NS.Path, s.Name, err)
	}
	if err != nil {
		return err
	}
	a.index[s.Name] = v.Index
	return nil
}

func (a *applier) addVXLAN(s plan.AddLink) error {
	v := &netlink.Vxlan{
		LinkAttrs: attrs(s.Link),
		VxlanId:   int(s.VXLAN.VNI),
		Port:      int(s.VXLAN.Port),
		SrcAddr:   s.VXLAN.Local.AsSlice(),
		Learning:  false,
	}
	err := a.nl.LinkAdd(v)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EADDRINUSE) {
		return a.foreign(s, err)
	}
	a.index[s.Name] = v.Index
	return err
}

// foreign names the device that has our VNI, our port or our name.
func (a *applier) foreign(s plan.AddLink, cause error) error {
	links, err := a.nl.LinkList()
	if err != nil {
		return cause
	}
	for _, l := range links {
		v, ok := l.(*netlink.Vxlan)
		if l.Attrs().Name == s.Name || ok && v.VxlanId == int(s.VXLAN.VNI) && v.Port == int(s.VXLAN.Port) {
			return fmt.Errorf("device %s, which is not ours, already has that name or VNI %d on port %d; remove it or give the network another vni or port: %w",
				l.Attrs().Name, s.VXLAN.VNI, s.VXLAN.Port, cause)
		}
	}
	return cause
}

func attrs(l plan.Link) netlink.LinkAttrs {
	at := netlink.NewLinkAttrs()
	at.Name, at.MTU, at.HardwareAddr, at.Group = l.Name, l.MTU, l.MAC[:], l.Group
	if l.Up {
		at.Flags = net.FlagUp
	}
	return at
}

func (a *applier) setLink(s plan.SetLink) error {
	return a.onLink(s.Name, func(l netlink.Link) error {
		if s.MTU > 0 {
			if err := a.nl.LinkSetMTU(l, s.MTU); err != nil {
				return err
			}
		}
		if s.Group > 0 {
			if err := a.nl.LinkSetGroup(l, int(s.Group)); err != nil {
				return err
			}
		}
		if s.Up {
			return a.nl.LinkSetUp(l)
		}
		return nil
	})
}

// awaitUp asks until the link is operational. Asking itself makes newer kernels (6.8) look at the carrier at once; on
// older ones the link watch runs within a millisecond or so.
func (a *applier) awaitUp(ctx context.Context, name string) error {
	deadline := time.Now().Add(2 * time.Second)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		l, err := a.nl.LinkByName(name)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link is %s after 2 s", l.Attrs().OperState)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func (a *applier) onLink(name string, do func(netlink.Link) error) error {
	i, err := a.linkIndex(name)
	if err != nil {
		return err
	}
	return do(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name, Index: i}})
}

func (a *applier) linkIndex(name string) (int, error) {
	if i := a.index[name]; i > 0 {
		return i, nil
	}
	l, err := a.nl.LinkByName(name)
	if err != nil {
		var none netlink.LinkNotFoundError
		if errors.As(err, &none) {
			return 0, unix.ENODEV
		}
		return 0, err
	}
	a.index[name] = l.Attrs().Index
	return l.Attrs().Index, nil
}

func (a *applier) withRoute(r plan.Route, do func(*netlink.Route) error) error {
	route := &netlink.Route{
		Dst:      prefix(r.Dst),
		Protocol: plan.Protocol,
		Table:    unix.RT_TABLE_MAIN,
	}
	if r.Unreachable {
		route.Type = unix.RTN_UNREACHABLE
		return do(route)
	}
	i, err := a.linkIndex(r.Dev)
	if err != nil {
		return err
	}
	route.LinkIndex = i
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		route.SetFlag(netlink.FLAG_ONLINK)
	}
	if r.Src.IsValid() {
		route.Src = r.Src.AsSlice()
	}
	return do(route)
}

func (a *applier) withNeigh(n plan.Neigh, do func(*netlink.Neigh) error) error {
	i, err := a.linkIndex(n.Dev)
	if err != nil {
		return err
	}
	return do(&netlink.Neigh{LinkIndex: i, State: netlink.NUD_PERMANENT, IP: n.IP.AsSlice(), HardwareAddr: n.MAC[:]})
}

func (a *applier) withFDB(f plan.FDB, do func(*netlink.Neigh) error) error {
	i, err := a.linkIndex(f.Dev)
	if err != nil {
		return err
	}
	return do(&netlink.Neigh{
		LinkIndex: i, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
		IP: f.Dst.AsSlice(), HardwareAddr: f.MAC[:],
	})
}

// gone makes the deletion of what is not there a success.
func gone(err error) error {
	for _, e := range []syscall.Errno{unix.ENODEV, unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// addAddr turns IPv6 on where it is off for the device: a container that is on an IPv6 network is to have its address.
func (a *applier) addAddr(l netlink.Link, p netip.Prefix) error {
	err := a.nl.AddrAdd(l, address(p))
	if !errors.Is(err, unix.EACCES) || !p.Addr().Is6() || a.ns == nil {
		return err
	}
	if err := a.conn.enableIPv6(*a.ns, l.Attrs().Name); err != nil {
		return err
	}
	return a.nl.AddrAdd(l, address(p))
}

// address skips duplicate address detection (RFC 4862, 5.4), which takes a second: who has which address is ours to know.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: prefix(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func prefix(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
