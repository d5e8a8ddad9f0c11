package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Inspect reads what there is of one attachment: on the host, and in its namespace.
func (c *Conn) Inspect(_ context.Context, a plan.Attachment, ns plan.Namespace) (plan.Inspection, error) {
	var i plan.Inspection
	host, err := view(c.nl, a.Link())
	if err != nil {
		return i, fmt.Errorf("inspect %s: %w", a.Link(), err)
	}
	i.HasLink, i.Link, i.HostRoute, i.HostNeigh = host.found, host.link, host.routes, host.neighs

	if i.Table, err = observeTable(); err != nil {
		return i, fmt.Errorf("read table %s: %w", plan.TableName, err)
	}
	inner, err := netlink.NewHandleAt(netns.NsHandle(ns.FD), unix.NETLINK_ROUTE)
	if err != nil {
		return i, fmt.Errorf("open netlink in %s: %w", ns.Path, err)
	}
	defer inner.Close()
	box, err := view(inner, a.IfName)
	if err != nil {
		return i, fmt.Errorf("inspect %s in %s: %w", a.IfName, ns.Path, err)
	}
	i.HasInner, i.Inner, i.Addrs, i.Routes, i.Neighs = box.found, box.link, box.addrs, box.routes, box.neighs
	return i, nil
}

// LinkIndex gives the index of a link by its name, or false when there is none.
func (c *Conn) LinkIndex(name string) (int, bool, error) {
	l, err := c.route.link(name)
	if errors.Is(err, unix.ENODEV) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("find link %s: %w", name, err)
	}
	return l.index, true, nil
}

// linkView is one device and what stands on it.
type linkView struct {
	found  bool
	link   plan.Link
	addrs  []netip.Prefix
	routes []plan.Route
	neighs []plan.Neigh
}

func view(h *netlink.Handle, name string) (linkView, error) {
	var v linkView
	l, err := h.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.found, v.link = true, observedLink(l)
	addrs, err := bothFamilies(func(family int) ([]netlink.Addr, error) { return h.AddrList(l, family) })
	if err != nil {
		return v, err
	}
	for _, a := range addrs {
		v.addrs = append(v.addrs, netPrefix(a.IPNet))
	}
	routes, err := bothFamilies(func(family int) ([]netlink.Route, error) { return h.RouteList(l, family) })
	if err != nil {
		return v, err
	}
	for _, r := range routes {
		v.routes = append(v.routes, plan.Route{
			Dst: destination(r), Dev: name, Via: addr(r.Gw), OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0, Src: addr(r.Src),
		})
	}
	neighs, err := bothFamilies(func(family int) ([]netlink.Neigh, error) { return h.NeighList(l.Attrs().Index, family) })
	if err != nil {
		return v, err
	}
	for _, n := range neighs {
		if n.State == netlink.NUD_PERMANENT {
			v.neighs = append(v.neighs, plan.Neigh{Dev: name, IP: addr(n.IP), MAC: mac(n.HardwareAddr)})
		}
	}
	return v, nil
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
