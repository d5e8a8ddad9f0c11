package kernel

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Visit is a netlink socket in a container's namespace: one for all that an attach asks and changes there, because
// making it moves a thread there and back.
type Visit struct {
	conn *Conn
	nl   *netlink.Handle
	ns   plan.Namespace
}

// Visit opens one. Close it when done.
func (c *Conn) Visit(ns plan.Namespace) (*Visit, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Path, err)
	}
	return &Visit{c, h, ns}, nil
}

// Close ends the Visit.
func (v *Visit) Close() { v.nl.Close() }

// Namespace is the one that is visited.
func (v *Visit) Namespace() plan.Namespace { return v.ns }

// Apply is as Conn.Apply; steps inside the namespace use this Visit.
func (v *Visit) Apply(ctx context.Context, steps []plan.Step) error {
	a := applier{conn: v.conn, nl: v.conn.nl, visit: v, index: map[string]int{}}
	return a.apply(ctx, steps)
}

// HasDefaultRoute tells whether the namespace has a default route of a family.
func (v *Visit) HasDefaultRoute(v6 bool) (bool, error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	routes, err := retryDump(func() ([]netlink.Route, error) {
		return v.nl.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return false, fmt.Errorf("look for a default route in %s: %w", v.ns.Path, err)
	}
	for _, r := range routes {
		if r.Type == unix.RTN_UNICAST {
			return true, nil
		}
	}
	return false, nil
}
