package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Underlay is the device by which this host talks to others.
type Underlay struct {
	Dev  string
	Addr netip.Addr
	MTU  int          // bytes
	Net  netip.Prefix // whose addresses are on the same segment
}

func (u Underlay) String() string { return fmt.Sprintf("%s on %s, MTU %d", u.Addr, u.Dev, u.MTU) }

// ErrNoUnderlay is returned by FindUnderlay when the host has no default route and no address was asked for.
var ErrNoUnderlay = errors.New("no default route")

// FindUnderlay gives the device that has the address want, or, without want, that of the default route with the lowest
// metric, of IPv4 before IPv6, and the address that this host sends from there.
func (c *Conn) FindUnderlay(want netip.Addr) (Underlay, error) {
	if want.IsValid() {
		return c.underlayWith(want)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := c.nl.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err != nil {
			return Underlay{}, fmt.Errorf("find default route: %w", err)
		}
		slices.SortStableFunc(routes, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
		for _, r := range routes {
			if len(r.MultiPath) > 0 {
				r.LinkIndex, r.Gw = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
			}
			l, err := c.nl.LinkByIndex(r.LinkIndex)
			if err != nil {
				continue // of no device
			}
			addrs, err := c.nl.AddrList(l, family)
			if err != nil {
				continue // the device has just gone
			}
			if a, ok := sender(addrs, addr(r.Src), addr(r.Gw)); ok {
				return underlay(l, a), nil
			}
		}
	}
	return Underlay{}, ErrNoUnderlay
}

// sender chooses the address that others are to know: the one that the default route names, else the first that lasts in
// the gateway's subnet, else the first that lasts. IPv4 lists addresses by age and sends from the first of a subnet; of
// IPv6, which lists the newest first, it is the lowest, so that a new one changes nothing as a rule.
func sender(addrs []netlink.Addr, named, gateway netip.Addr) (netlink.Addr, bool) {
	const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	lasting := slices.DeleteFunc(slices.Clone(addrs), func(a netlink.Addr) bool {
		return !addr(a.IP).IsGlobalUnicast() || a.Flags&passing != 0
	})
	if len(lasting) > 0 && addr(lasting[0].IP).Is6() {
		slices.SortFunc(lasting, func(a, b netlink.Addr) int { return addr(a.IP).Compare(addr(b.IP)) })
	}
	for _, suits := range []func(netlink.Addr) bool{
		func(a netlink.Addr) bool { return addr(a.IP) == named },
		func(a netlink.Addr) bool { return gateway.IsValid() && netPrefix(a.IPNet).Contains(gateway) },
		func(netlink.Addr) bool { return true },
	} {
		if i := slices.IndexFunc(lasting, suits); i >= 0 {
			return lasting[i], true
		}
	}
	return netlink.Addr{}, false
}

func (c *Conn) underlayWith(want netip.Addr) (Underlay, error) {
	addrs, err := c.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return Underlay{}, fmt.Errorf("find the device with %s: %w", want, err)
	}
	for _, a := range addrs {
		if addr(a.IP) != want {
			continue
		}
		l, err := c.nl.LinkByIndex(a.LinkIndex)
		if err != nil {
			return Underlay{}, fmt.Errorf("find the device with %s: %w", want, err)
		}
		return underlay(l, a), nil
	}
	return Underlay{}, fmt.Errorf("no device of this host has the address %s; set node.address to one that it has", want)
}

// PathMTU gives what the kernel knows of the largest packet to a host, by its routes and by what routers have answered;
// 0 when it knows nothing but its own device.
func (c *Conn) PathMTU(to netip.Addr) (int, error) {
	routes, err := c.routesTo(to)
	if err != nil {
		return 0, err
	}
	for _, r := range routes {
		if r.MTU > 0 {
			return r.MTU, nil
		}
	}
	return 0, nil
}

// NextHop gives the gateway to a host, or the host itself where there is none between.
func (c *Conn) NextHop(to netip.Addr) (netip.Addr, error) {
	routes, err := c.routesTo(to)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range routes {
		if gw := addr(r.Gw); gw.IsValid() {
			return gw, nil
		}
	}
	return to, nil
}

func (c *Conn) routesTo(to netip.Addr) ([]netlink.Route, error) {
	routes, err := c.nl.RouteGet(to.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("find the route to %s: %w", to, err)
	}
	return routes, nil
}

func underlay(l netlink.Link, a netlink.Addr) Underlay {
	return Underlay{l.Attrs().Name, addr(a.IP), l.Attrs().MTU, netPrefix(a.IPNet).Masked()}
}
