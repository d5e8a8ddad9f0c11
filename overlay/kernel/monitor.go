package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Change is one thing that happened in the kernel to what may be ours. One of the fields says what; a neighbour
// that somebody set is Neigh and Found.
type Change struct {
	LinkGone string       // one of our links disappeared
	LinkSet  plan.Link    // one of our links changed: its name, MTU, group, MAC and whether it is up
	Route    netip.Prefix // a route of ours was removed, or somebody replaced one
	Neigh    netip.Addr   // a neighbour entry or a forwarding entry was removed or set; the address it was for or led to
	Leads    netip.Addr   // with Neigh, of a forwarding entry that was set: where it leads
	Found    netip.Addr   // a host of a segment was found there, anew or with another MAC, or was not
	Settings bool         // an address, a sysctl, or the nftables rules of somebody changed
	Lost     bool         // events were lost, or the watch has just begun: anything may have happened
}

// Watch calls seen for each Change, until ctx ends or the subscription breaks. It blocks; seen must be quick and may
// be called from two goroutines.
func (c *Conn) Watch(ctx context.Context, seen func(Change)) error {
	g := agent.NewGroup(ctx)
	g.Go(func(ctx context.Context) error {
		groups := []uint32{
			unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_NETCONF,
			unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_NETCONF,
		}
		return subscribe(ctx, unix.NETLINK_ROUTE, groups, seen, c.routeChange)
	})
	g.Go(func(ctx context.Context) error {
		return subscribe(ctx, unix.NETLINK_NETFILTER, []uint32{unix.NFNLGRP_NFTABLES}, seen, c.tableChange)
	})
	return g.Wait()
}

// subscribe hands what parse makes of each message to seen.
func subscribe(ctx context.Context, family int, groups []uint32, seen func(Change), parse func(netlink.Message) (Change, bool)) error {
	conn, err := netlink.Dial(family, nil)
	if err != nil {
		return fmt.Errorf("watch kernel: %w", err)
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		return fmt.Errorf("watch kernel: %w", err)
	}
	for _, group := range groups {
		if err := conn.JoinGroup(group); err != nil {
			return fmt.Errorf("watch kernel: join group %d: %w", group, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // ends Receive
	defer stop()
	seen(Change{Lost: true})
	for ctx.Err() == nil {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, unix.ENOBUFS):
			seen(Change{Lost: true})
		case err != nil:
			return fmt.Errorf("watch kernel: %w", err)
		}
		for _, m := range messages {
			if change, ok := parse(m); ok {
				seen(change)
			}
		}
	}
	return nil
}

// tableChange: the end of any transaction of nftables that was not an attach or detach of ours; what it touched is for
// Observe to see.
func (c *Conn) tableChange(m netlink.Message) (Change, bool) {
	const newGen = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	return Change{Settings: true}, m.Header.Type == newGen && !c.table.isOurs(m.Header.PID)
}

// The sizes of the messages' fixed parts: struct ifinfomsg, ndmsg, rtmsg, ifaddrmsg, netconfmsg (rtnetlink(7)).
const (
	ifInfoLen  = 16
	ndLen      = 12
	rtLen      = 12
	ifAddrLen  = 8
	netconfLen = 4
)

// routeChange knows what we did ourselves by the port of the socket that asked for it; what the kernel does by itself
// has none.
func (c *Conn) routeChange(m netlink.Message) (Change, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return linkChange(m)
	case unix.RTM_DELROUTE:
		change, ours := routeOf(m.Data)
		return change, ours && m.Header.PID != c.pid
	case unix.RTM_NEWROUTE:
		change, ours := routeOf(m.Data)
		replaced := m.Header.Flags&unix.NLM_F_REPLACE != 0 && m.Header.PID != c.pid
		return change, replaced && (ours || change.Route.IsSingleIP() || byHand(m.Data))
	case unix.RTM_DELNEIGH:
		change, ok := neighOf(m.Data)
		return change, ok && m.Header.PID != c.pid
	case unix.RTM_NEWNEIGH:
		change, ok := neighOf(m.Data)
		switch {
		case ok && m.Data[0] == unix.AF_BRIDGE:
			return fdbSet(m.Data) // who set it is not told
		case m.Header.PID == 0:
			return Change{Found: change.Neigh}, ok
		}
		change.Found = change.Neigh
		return change, ok && m.Header.PID != c.pid
	case unix.RTM_DELADDR: // a link-local address goes with each link
		return Change{Settings: true}, len(m.Data) >= ifAddrLen && m.Data[3] != unix.RT_SCOPE_LINK // ifa_scope
	case unix.RTM_NEWNETCONF:
		return Change{Settings: true}, ofAllDevices(m.Data)
	}
	return Change{}, false
}

func linkChange(m netlink.Message) (Change, bool) {
	if len(m.Data) < ifInfoLen {
		return Change{}, false
	}
	l := plan.Link{Up: binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0} // ifi_flags
	attributes(m.Data, ifInfoLen, func(typ uint16, data []byte) {
		switch {
		case typ == unix.IFLA_IFNAME:
			l.Name = strings.TrimRight(string(data), "\x00")
		case typ == unix.IFLA_ADDRESS && len(data) == 6:
			l.MAC = mac(data)
		case typ == unix.IFLA_MTU && len(data) == 4:
			l.MTU = int(binary.NativeEndian.Uint32(data))
		case typ == unix.IFLA_GROUP && len(data) == 4:
			l.Group = binary.NativeEndian.Uint32(data)
		}
	})
	ours := strings.HasPrefix(l.Name, plan.LinkPrefix) || strings.HasPrefix(l.Name, plan.VXLANPrefix)
	if m.Header.Type == unix.RTM_DELLINK {
		return Change{LinkGone: l.Name}, ours
	}
	return Change{LinkSet: l}, (ours || l.Group == plan.Group) && l.MTU > 0 // else a message of one attribute's change
}

// routeOf gives a route's destination and tells whether it is one of ours.
func routeOf(b []byte) (c Change, ours bool) {
	if len(b) < rtLen {
		return Change{}, false
	}
	dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0) // all that counts of a default route is that it is not single
	attributes(b, rtLen, func(typ uint16, data []byte) {
		if a, ok := netip.AddrFromSlice(data); ok && typ == unix.RTA_DST {
			dst = netip.PrefixFrom(a, int(b[1])) // rtm_dst_len
		}
	})
	return Change{Route: dst}, b[5] == plan.Protocol // rtm_protocol
}

// byHand tells whether a route is of those that people write: routing daemons replace thousands.
func byHand(b []byte) bool {
	return len(b) >= rtLen && (b[5] == unix.RTPROT_BOOT || b[5] == unix.RTPROT_STATIC)
}

// Of linux/netconf.h.
const (
	netconfIfIndex    = 1
	netconfAllDevices = -1
)

// ofAllDevices tells whether a netconf message is of the setting for all devices, and not of one: each new device
// has a message.
func ofAllDevices(b []byte) (all bool) {
	attributes(b, netconfLen, func(typ uint16, data []byte) {
		if typ == netconfIfIndex && len(data) == 4 {
			all = int32(binary.NativeEndian.Uint32(data)) == netconfAllDevices
		}
	})
	return all
}

func neighOf(b []byte) (Change, bool) {
	var c Change
	attributes(b, ndLen, func(typ uint16, data []byte) {
		if a, ok := netip.AddrFromSlice(data); ok && typ == unix.NDA_DST {
			c.Neigh = a
		}
	})
	return c, c.Neigh.IsValid()
}

// fdbSet names a forwarding entry by its MAC, as that of a peer's VTEP does (plan.MAC.LinkLocal): the address that it
// leads to may have been changed.
func fdbSet(b []byte) (Change, bool) {
	var c Change
	attributes(b, ndLen, func(typ uint16, data []byte) {
		if typ == unix.NDA_LLADDR && len(data) == 6 {
			c.Neigh = mac(data).LinkLocal()
		}
		if a, ok := netip.AddrFromSlice(data); ok && typ == unix.NDA_DST {
			c.Leads = a
		}
	})
	return c, c.Neigh.IsValid()
}

// attributes walks the attributes behind a message's fixed part. A message that is cut short ends the walk.
func attributes(b []byte, fixed int, each func(typ uint16, data []byte)) {
	if len(b) < fixed {
		return
	}
	for b = b[fixed:]; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}
