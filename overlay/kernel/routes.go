package kernel

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// ForeignRoute gives a route of the main table that leads some of a prefix's addresses elsewhere, as `ip route` would
// show it, or "". Default routes and our own do not count.
func (c *Conn) ForeignRoute(cidr netip.Prefix) (string, error) {
	routes, err := retryDump(func() (list []route, err error) {
		err = c.eachRoute(cidr.Addr().Is6(), func(r route) {
			if r.dst.Bits() > 0 && r.protocol != plan.Protocol && r.dst.Overlaps(cidr) {
				list = append(list, r)
			}
		})
		return list, err
	})
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		l, err := c.nl.LinkByIndex(r.dev)
		switch {
		case err != nil: // a multipath or blackhole route has no device
			return r.dst.String(), nil //nolint:nilerr // the route is what was asked for
		case isOurs(l.Attrs()):
			continue // of the kernel's own making
		}
		return fmt.Sprintf("%s dev %s", r.dst, l.Attrs().Name), nil
	}
	return "", nil
}
