package kernel

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Routes, neighbours and forwarding entries are listed by thousands. They are read here from the messages themselves: the
// library makes a dozen objects of each, which was two fifths of a start with 5,000 peers.

// route is one of the main table, as rtnetlink(7) lists it.
type route struct {
	dst            netip.Prefix
	protocol, kind byte
	onLink         bool
	dev            int // index; 0: none, or several
	via, src       netip.Addr
	mtu            int
	metric         uint32
}

// eachRoute calls each with the routes of a family. A dump that was interrupted has to be repeated (retryDump).
func (c *Conn) eachRoute(v6 bool, each func(route)) error {
	return c.lists.dump(getRoutes(v6), func(body []byte) {
		if r, ok := parseRoute(body, v6); ok {
			each(r)
		}
	})
}

// parseRoute reads struct rtmsg and what follows; false for other tables, and for what the kernel has cached.
func parseRoute(b []byte, v6 bool) (r route, ok bool) {
	if len(b) < rtLen || b[4] != unix.RT_TABLE_MAIN { // rtm_table
		return r, false
	}
	flags := native.Uint32(b[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return r, false
	}
	r.protocol, r.kind, r.onLink = b[5], b[7], flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified() // a default route has none
	if v6 {
		dst = netip.IPv6Unspecified()
	}
	attributes(b, rtLen, func(typ uint16, data []byte) {
		switch {
		case typ == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(data)
		case typ == unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(data)
		case typ == unix.RTA_PREFSRC:
			r.src, _ = netip.AddrFromSlice(data)
		case typ == unix.RTA_PRIORITY && len(data) == 4:
			r.metric = native.Uint32(data)
		case typ == unix.RTA_OIF && len(data) == 4:
			r.dev = int(native.Uint32(data))
		case typ == unix.RTA_METRICS:
			attributes(data, 0, func(typ uint16, data []byte) {
				if typ == unix.RTAX_MTU && len(data) == 4 {
					r.mtu = int(native.Uint32(data))
				}
			})
		}
	})
	r.dst = netip.PrefixFrom(dst, int(b[1])) // rtm_dst_len
	return r, true
}

// neighbour is one of the kernel's neighbours, or of a bridge's or a VXLAN device's forwarding entries.
type neighbour struct {
	dev       int
	permanent bool
	addr      netip.Addr
	mac       plan.MAC
}

// eachNeighbour calls each with those of a family; unix.AF_UNSPEC: of IPv4 and IPv6. See eachRoute.
func (c *Conn) eachNeighbour(family byte, each func(neighbour)) error {
	return c.lists.dump(getNeighbours(family), func(b []byte) {
		if len(b) < ndLen {
			return
		}
		n := neighbour{dev: int(native.Uint32(b[4:])), permanent: native.Uint16(b[8:])&unix.NUD_PERMANENT != 0}
		attributes(b, ndLen, func(typ uint16, data []byte) {
			switch typ {
			case unix.NDA_DST:
				n.addr, _ = netip.AddrFromSlice(data)
			case unix.NDA_LLADDR:
				n.mac = mac(data)
			}
		})
		each(n)
	})
}
