package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// ForeignRoute gives a route of the main table that leads some of a prefix's addresses elsewhere, as `ip route` would
// show it, or "". Default routes and our own do not count.
func (c *Conn) ForeignRoute(cidr netip.Prefix) (string, error) {
	family := netlink.FAMILY_V4
	if cidr.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := retryDump(func() ([]netlink.Route, error) {
		return c.nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		dst := destination(r)
		if dst.Bits() == 0 || r.Protocol == plan.Protocol || !dst.Overlaps(cidr) {
			continue
		}
		l, err := c.nl.LinkByIndex(r.LinkIndex)
		switch {
		case err != nil: // a multipath or blackhole route has no device
			return dst.String(), nil //nolint:nilerr // the route is what was asked for
		case isOurs(l.Attrs()):
			continue // of the kernel's own making
		}
		return fmt.Sprintf("%s dev %s", dst, l.Attrs().Name), nil
	}
	return "", nil
}
