package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Observe reads everything of ours from the kernel: one dump each of links, routes, neighbours,
// forwarding entries and addresses. It is for the start and for repair, never on the way of an attach.
func (c *Conn) Observe(ctx context.Context) (plan.Observed, error) {
	var o plan.Observed
	links, err := retryDump(c.nl.LinkList)
	if err != nil {
		return o, fmt.Errorf("list links: %w", err)
	}
	ours, names := map[int]plan.Link{}, map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		if isOurs(l.Attrs()) {
			link := observedLink(l)
			ours[link.Index] = link
			o.Links = append(o.Links, link)
		}
	}
	if err := ctx.Err(); err != nil {
		return o, err
	}
	if o.Routes, err = c.routes(names); err != nil {
		return o, fmt.Errorf("list routes: %w", err)
	}
	if o.Neighs, err = c.neighs(ours); err != nil {
		return o, fmt.Errorf("list neighbours: %w", err)
	}
	if o.FDB, err = c.fdb(ours); err != nil {
		return o, fmt.Errorf("list forwarding entries: %w", err)
	}
	if o.Addrs, err = c.addrs(ours); err != nil {
		return o, fmt.Errorf("list addresses: %w", err)
	}
	if o.Sysctls, err = c.Sysctls(); err != nil {
		return o, err
	}
	if o.Table, err = observeTable(); err != nil {
		return o, fmt.Errorf("read table %s: %w", plan.TableName, err)
	}
	return o, nil
}

// isOurs knows a link by its group, and by its name when somebody has changed that.
func isOurs(l *netlink.LinkAttrs) bool {
	switch l.Group {
	case plan.Group, plan.RetiredGroup, plan.TunnelGroup:
		return true
	}
	_, ours := plan.ParseAlias(l.Alias)
	return ours || strings.HasPrefix(l.Name, plan.VXLANPrefix)
}

func observedLink(l netlink.Link) plan.Link {
	at := l.Attrs()
	out := plan.Link{
		Name: at.Name, Kind: l.Type(), MTU: at.MTU, MAC: mac(at.HardwareAddr), Up: at.Flags&net.FlagUp != 0,
		Group: at.Group, Index: at.Index, Alias: at.Alias, Retired: at.Group == plan.RetiredGroup,
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		out.VXLAN = plan.VXLAN{VNI: uint32(v.VxlanId), Port: uint16(v.Port), Local: addr(v.SrcAddr)}
	}
	return out
}

func (c *Conn) routes(names map[int]string) ([]plan.Route, error) {
	filter := &netlink.Route{Protocol: plan.Protocol, Table: unix.RT_TABLE_MAIN}
	list, err := bothFamilies(func(family int) ([]netlink.Route, error) {
		return c.nl.RouteListFiltered(family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, err
	}
	var out []plan.Route
	for _, r := range list {
		route := plan.Route{
			Dst: destination(r), Unreachable: r.Type == unix.RTN_UNREACHABLE, Dev: names[r.LinkIndex],
			Via: addr(r.Gw), OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0, Src: addr(r.Src), MTU: r.MTU,
		}
		if route.Unreachable {
			route.Dev = "" // IPv6 shows lo
		}
		out = append(out, route)
	}
	return out, nil
}

func (c *Conn) neighs(ours map[int]plan.Link) ([]plan.Neigh, error) {
	list, err := bothFamilies(func(family int) ([]netlink.Neigh, error) { return c.nl.NeighList(0, family) })
	if err != nil {
		return nil, err
	}
	var out []plan.Neigh
	for _, n := range list {
		if l, ok := ours[n.LinkIndex]; ok && n.State == netlink.NUD_PERMANENT {
			out = append(out, plan.Neigh{Dev: l.Name, IP: addr(n.IP), MAC: mac(n.HardwareAddr)})
		}
	}
	return out, nil
}

func (c *Conn) fdb(ours map[int]plan.Link) ([]plan.FDB, error) {
	list, err := retryDump(func() ([]netlink.Neigh, error) { return c.nl.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return nil, err
	}
	var out []plan.FDB
	for _, f := range list {
		if l, ok := ours[f.LinkIndex]; ok && l.Kind == "vxlan" && f.IP != nil {
			out = append(out, plan.FDB{Dev: l.Name, MAC: mac(f.HardwareAddr), Dst: addr(f.IP)})
		}
	}
	return out, nil
}

func (c *Conn) addrs(ours map[int]plan.Link) ([]plan.Addr, error) {
	list, err := bothFamilies(func(family int) ([]netlink.Addr, error) { return c.nl.AddrList(nil, family) })
	if err != nil {
		return nil, err
	}
	var out []plan.Addr
	for _, a := range list {
		if l, ok := ours[a.LinkIndex]; ok && !a.IP.IsLinkLocalUnicast() { // those the kernel gives by itself
			out = append(out, plan.Addr{Dev: l.Name, Prefix: netPrefix(a.IPNet)})
		}
	}
	return out, nil
}

// bothFamilies joins an IPv4 and an IPv6 dump.
func bothFamilies[T any](dump func(family int) ([]T, error)) ([]T, error) {
	four, err := retryDump(func() ([]T, error) { return dump(netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	six, err := retryDump(func() ([]T, error) { return dump(netlink.FAMILY_V6) })
	return append(four, six...), err
}

// retryDump repeats a dump that another change interrupted (NLM_F_DUMP_INTR): what it gave may miss entries.
func retryDump[T any](dump func() ([]T, error)) ([]T, error) {
	for range 10 {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return nil, errors.New("the kernel's tables changed during each of ten dumps")
}

func mac(b net.HardwareAddr) (m plan.MAC) {
	copy(m[:], b)
	return m
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// destination gives a route's; a default route has none in the message.
func destination(r netlink.Route) netip.Prefix {
	switch {
	case r.Dst != nil:
		return netPrefix(r.Dst)
	case r.Family == netlink.FAMILY_V6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func netPrefix(n *net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), ones)
}
