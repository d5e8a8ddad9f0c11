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
	return retryDump(func() (out []plan.Route, err error) {
		for _, v6 := range []bool{false, true} {
			err = errors.Join(err, c.eachRoute(v6, func(r route) {
				if r.protocol != plan.Protocol {
					return
				}
				ours := plan.Route{Dst: r.dst, Unreachable: r.kind == unix.RTN_UNREACHABLE, Via: r.via, OnLink: r.onLink, Src: r.src, MTU: r.mtu}
				if !v6 { // the kernel gives each route of IPv6 one
					ours.Metric = r.metric
				}
				if !ours.Unreachable { // of which IPv6 shows lo
					ours.Dev = names[r.dev]
				}
				out = append(out, ours)
			}))
		}
		return out, err
	})
}

func (c *Conn) neighs(ours map[int]plan.Link) ([]plan.Neigh, error) {
	return retryDump(func() (out []plan.Neigh, err error) {
		err = c.eachNeighbour(unix.AF_UNSPEC, func(n neighbour) {
			if l, ok := ours[n.dev]; ok && n.permanent {
				out = append(out, plan.Neigh{Dev: l.Name, IP: n.addr, MAC: n.mac})
			}
		})
		return out, err
	})
}

func (c *Conn) fdb(ours map[int]plan.Link) ([]plan.FDB, error) {
	return retryDump(func() (out []plan.FDB, err error) {
		err = c.eachNeighbour(unix.AF_BRIDGE, func(f neighbour) {
			if l, ok := ours[f.dev]; ok && l.Kind == "vxlan" && f.addr.IsValid() {
				out = append(out, plan.FDB{Dev: l.Name, MAC: f.mac, Dst: f.addr})
			}
		})
		return out, err
	})
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

func mac(b []byte) (m plan.MAC) {
	copy(m[:], b)
	return m
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func netPrefix(n *net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), ones)
}
