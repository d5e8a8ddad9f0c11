package kernel

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// message is one request to netlink(7) without its header: a struct of its type, then attributes.
type message struct {
	typ, flags uint16
	asks       bool // for an answer of another kind than an acknowledgement
	body       []byte
}

// attr appends struct rtattr with its padding.
func (m *message) attr(typ uint16, data []byte) {
	m.body = native.AppendUint16(m.body, uint16(unix.SizeofRtAttr+len(data)))
	m.body = native.AppendUint16(m.body, typ)
	m.body = append(m.body, data...)
	for len(m.body)%unix.RTA_ALIGNTO != 0 {
		m.body = append(m.body, 0)
	}
}

func (m *message) attr32(typ uint16, v uint32) { m.attr(typ, native.AppendUint32(nil, v)) }

func (m *message) attrText(typ uint16, text string) { m.attr(typ, append([]byte(text), 0)) }

// nest appends an attribute that holds others.
func (m *message) nest(typ uint16, fill func()) {
	at := len(m.body)
	m.attr(typ, nil)
	fill()
	native.PutUint16(m.body[at:], uint16(len(m.body)-at))
}

// ifInfo appends struct ifinfomsg.
func (m *message) ifInfo(index int, up bool) {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	m.body = append(m.body, unix.AF_UNSPEC, 0, 0, 0)
	m.body = native.AppendUint32(m.body, uint32(index))
	m.body = native.AppendUint32(m.body, flags)
	m.body = native.AppendUint32(m.body, flags) // of which these change
}

// device is a link by its index, or by its name as long as that is not known. With both the kernel would rename it.
type device struct {
	index int
	name  string
}

// linkMessage begins a message to a link that is there.
func linkMessage(typ uint16, d device, up bool) message {
	m := message{typ: typ}
	m.ifInfo(d.index, up)
	if d.index == 0 {
		m.attrText(unix.IFLA_IFNAME, d.name)
	}
	return m
}

func setLink(d device, s plan.SetLink) message {
	m := linkMessage(unix.RTM_SETLINK, d, s.Up)
	if s.MTU > 0 {
		m.attr32(unix.IFLA_MTU, uint32(s.MTU))
	}
	if s.Group > 0 {
		m.attr32(unix.IFLA_GROUP, s.Group)
	}
	if s.MAC != (plan.MAC{}) {
		m.attr(unix.IFLA_ADDRESS, s.MAC[:])
	}
	return m
}

func setAlias(d device, alias string) message {
	m := linkMessage(unix.RTM_SETLINK, d, false)
	m.attr(unix.IFLA_IFALIAS, []byte(alias))
	return m
}

// devconf gives the numbers of those per-device settings of IPv4 that a message can set: linux/ip.h, IPV4_DEVCONF_*.
var devconf = map[string]uint16{"route_localnet": 26}

// setDevconf is what a write to /proc/sys/net/ipv4/conf/DEV/KEY does, without opening three directories.
func setDevconf(d device, key uint16, value uint32) message {
	const inetConf = 1 // IFLA_INET_CONF
	m := linkMessage(unix.RTM_SETLINK, d, false)
	m.nest(unix.IFLA_AF_SPEC, func() {
		m.nest(unix.AF_INET, func() {
			m.nest(inetConf, func() { m.attr32(key, value) })
		})
	})
	return m
}

// getLink asks for a link without its statistics.
func getLink(name string) message {
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	m := linkMessage(unix.RTM_GETLINK, device{name: name}, false)
	m.asks = true
	m.attr32(unix.IFLA_EXT_MASK, skipStats)
	return m
}

// linkState is what is used of the answer to getLink.
type linkState struct {
	index int
	peer  int   // index of a veth's other end in its namespace; 0: not told
	state uint8 // IF_OPER_*
}

func parseLink(body []byte) (l linkState) {
	if len(body) < ifInfoLen {
		return l
	}
	l.index = int(int32(native.Uint32(body[4:])))
	attributes(body, ifInfoLen, func(typ uint16, data []byte) {
		switch {
		case typ == unix.IFLA_LINK && len(data) == 4:
			l.peer = int(native.Uint32(data))
		case typ == unix.IFLA_OPERSTATE && len(data) == 1:
			l.state = data[0]
		}
	})
	return l
}

// addVeth is all of a container's link in one message: both ends with name, MAC and MTU, each in its namespace.
func addVeth(s plan.AddVeth) message {
	const infoPeer = 1 // VETH_INFO_PEER
	m := message{typ: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL}
	m.ifInfo(0, s.Up)
	m.attrText(unix.IFLA_IFNAME, s.Name)
	m.attr(unix.IFLA_ADDRESS, s.MAC[:])
	m.attr32(unix.IFLA_MTU, uint32(s.MTU))
	m.attr32(unix.IFLA_GROUP, s.Group)
	m.nest(unix.IFLA_LINKINFO, func() {
		m.attr(unix.IFLA_INFO_KIND, []byte("veth"))
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.nest(infoPeer, func() {
				m.ifInfo(0, false)
				m.attrText(unix.IFLA_IFNAME, s.Peer)
				m.attr(unix.IFLA_ADDRESS, s.PeerMAC[:])
				m.attr32(unix.IFLA_MTU, uint32(s.MTU))
				m.attr32(unix.IFLA_NET_NS_FD, uint32(s.NS.FD))
			})
		})
	})
	return m
}

// addrMessage adds or deletes an address. Duplicate address detection (RFC 4862, 5.4), which takes a second, is
// skipped: who has which address is ours to know.
func addrMessage(typ, flags uint16, index int, p netip.Prefix) message {
	m := message{typ: typ, flags: flags}
	var how byte
	if p.Addr().Is6() {
		how = unix.IFA_F_NODAD
	}
	m.body = append(m.body, family(p.Addr()), byte(p.Bits()), how, unix.RT_SCOPE_UNIVERSE)
	m.body = native.AppendUint32(m.body, uint32(index))
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return m
}

// routeMessage replaces or deletes a route of ours.
func routeMessage(typ, flags uint16, index int, r plan.Route) message {
	m := message{typ: typ, flags: flags}
	scope, kind, onlink := byte(unix.RT_SCOPE_UNIVERSE), byte(unix.RTN_UNICAST), uint32(0)
	switch {
	case r.Unreachable:
		kind = unix.RTN_UNREACHABLE
	case !r.Via.IsValid():
		scope = unix.RT_SCOPE_LINK
	}
	if r.OnLink {
		onlink = unix.RTNH_F_ONLINK
	}
	m.body = append(m.body, family(r.Dst.Addr()), byte(r.Dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, plan.Protocol, scope, kind)
	m.body = native.AppendUint32(m.body, onlink)
	m.attr(unix.RTA_DST, r.Dst.Addr().AsSlice())
	if r.Metric > 0 {
		m.attr32(unix.RTA_PRIORITY, r.Metric)
	}
	if r.Unreachable {
		return m
	}
	if r.Via.IsValid() {
		m.attr(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	if r.Src.IsValid() {
		m.attr(unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	m.attr32(unix.RTA_OIF, uint32(index))
	if r.MTU > 0 {
		m.nest(unix.RTA_METRICS, func() { m.attr32(unix.RTAX_MTU, uint32(r.MTU)) })
	}
	return m
}

func neighMessage(typ, flags uint16, index int, n plan.Neigh) message {
	return ndMessage(typ, flags, index, family(n.IP), 0, n.IP, n.MAC)
}

// fdbMessage is of a forwarding entry: a neighbour by MAC.
func fdbMessage(typ, flags uint16, index int, f plan.FDB) message {
	return ndMessage(typ, flags, index, unix.AF_BRIDGE, unix.NTF_SELF, f.Dst, f.MAC)
}

func ndMessage(typ, flags uint16, index int, family, how byte, dst netip.Addr, mac plan.MAC) message {
	m := message{typ: typ, flags: flags}
	m.body = append(m.body, family, 0, 0, 0)
	m.body = native.AppendUint32(m.body, uint32(index))
	m.body = native.AppendUint16(m.body, unix.NUD_PERMANENT)
	m.body = append(m.body, how, 0)
	m.attr(unix.NDA_DST, dst.AsSlice())
	m.attr(unix.NDA_LLADDR, mac[:])
	return m
}

// getRoutes asks for all routes of a family.
func getRoutes(v6 bool) message {
	of := byte(unix.AF_INET)
	if v6 {
		of = unix.AF_INET6
	}
	return getAll(unix.RTM_GETROUTE, of, rtLen)
}

// getNeighbours asks for all neighbours of a family.
func getNeighbours(family byte) message { return getAll(unix.RTM_GETNEIGH, family, ndLen) }

// getAll asks for a list; of the fixed part, of a size, the family is what counts.
func getAll(typ uint16, family byte, size int) message {
	m := message{typ: typ, asks: true, body: make([]byte, size)}
	m.body[0] = family
	return m
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
