package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Segment gives the MACs of those hosts on a device's segment that answer there now, by address: what the kernel's own
// neighbour discovery (RFC 826) has found. A host that is asked for and not known is called once, so that the kernel
// looks for it; Watch tells when it has been found, or lost.
func (c *Conn) Segment(dev string, hosts []netip.Addr) (map[netip.Addr]plan.MAC, error) {
	l, err := c.nl.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dev, err)
	}
	list, err := bothFamilies(func(family int) ([]netlink.Neigh, error) { return c.nl.NeighList(l.Attrs().Index, family) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours on %s: %w", dev, err)
	}
	const answers = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	known := map[netip.Addr]plan.MAC{}
	for _, n := range list {
		if n.State&answers != 0 && len(n.HardwareAddr) == 6 {
			known[addr(n.IP)] = mac(n.HardwareAddr)
		}
	}
	out := map[netip.Addr]plan.MAC{}
	for _, h := range hosts {
		if m, ok := known[h]; ok {
			out[h] = m
		} else {
			call(h)
		}
	}
	return out, nil
}

// call sends one datagram to the discard port (RFC 863); whether it arrives does not matter.
func call(h netip.Addr) {
	c, err := net.Dial("udp", netip.AddrPortFrom(h, 9).String())
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte{0})
}
