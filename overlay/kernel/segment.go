package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Segment gives the MACs of those hosts on a device's segment that answer there now, by address: what the kernel's own
// neighbour discovery (RFC 826) has found. A host that is asked for and not known is called once, so that the kernel
// looks for it; Watch tells when it has been found, or lost. One that was there before stays until the kernel says that
// it failed: entries that nobody uses are forgotten where there are many.
func (c *Conn) Segment(dev string, hosts []netip.Addr, before map[netip.Addr]plan.MAC) (map[netip.Addr]plan.MAC, error) {
	l, err := c.nl.LinkByName(dev)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil // nobody is reached by a device that is gone
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dev, err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		return nil, nil // nobody is reached there, whoever was before
	}
	list, err := bothFamilies(func(family int) ([]netlink.Neigh, error) { return c.nl.NeighList(l.Attrs().Index, family) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours on %s: %w", dev, err)
	}
	const answers = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	known, failed := map[netip.Addr]plan.MAC{}, map[netip.Addr]bool{}
	for _, n := range list {
		failed[addr(n.IP)] = n.State&netlink.NUD_FAILED != 0
		if n.State&answers != 0 && len(n.HardwareAddr) == 6 {
			known[addr(n.IP)] = mac(n.HardwareAddr)
		}
	}
	out := map[netip.Addr]plan.MAC{}
	for _, h := range hosts {
		if m, ok := known[h]; ok {
			out[h] = m
			continue
		}
		if m, was := before[h]; was && !failed[h] {
			out[h] = m
		}
		call(h)
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
