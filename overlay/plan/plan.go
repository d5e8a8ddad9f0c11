// Package plan decides what the host's networking should be and which steps lead there. It is pure: values in, values
// out; package kernel observes and applies.
//
//	container eth0 10.42.1.2/32 ── veth ── flc7f1… ──┐ routed, no bridge
//	                                                 ├── fl-vx42 ══ UDP 4789 ══ fl-vx42 (peer)
//	10.42.2.0/24 via 192.0.2.12 onlink ──────────────┘
//
// Every object carries our mark so that it is known after a total loss of state: links by group, routes by protocol
// number, the nftables table by its name; neighbours and FDB entries die with our devices. Each thing that has an
// address is there once for IPv4 and, where the network has an IPv6 CIDR, once more for IPv6.
package plan

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The marks.
const (
	// Protocol is the routing protocol number of our routes. iproute2's rt_protos leaves 94 free.
	Protocol = 94
	// Group is the link group of containers' links; RetiredGroup of those that wait to be deleted in a batch;
	// TunnelGroup of VXLAN devices.
	Group        = 64030
	RetiredGroup = 64031
	TunnelGroup  = 64032
	// TableName is the one nftables table (family inet).
	TableName = "fairlead"
	// LinkPrefix begins the name of a container's host link, VXLANPrefix that of a network's VXLAN device.
	LinkPrefix  = "flc"
	VXLANPrefix = "fl-vx"
)

// Gateway and Gateway6 are the container's next hop. They are link-local and the same everywhere; a permanent neighbour
// entry in the container maps them to HostMAC, so nobody ever asks for them by ARP (Linux delays proxied answers by up
// to 0.8 s) or by neighbour discovery.
var (
	Gateway  = netip.MustParseAddr("169.254.77.1")
	Gateway6 = netip.MustParseAddr("fe80::1")
)

// gateway is the one for packets to dst's family.
func gateway(of netip.Addr) netip.Addr {
	if of.Is6() {
		return Gateway6
	}
	return Gateway
}

// HostMAC is the address of every host end of a container's link. Each is alone on its link, so they may be equal.
var HostMAC = MAC{0x02, 0xfa, 0x1e, 0xad, 0x00, 0x01}

// MAC is a link-layer address, comparable.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText writes the usual form.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads six bytes in hexadecimal.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil || len(hw) != len(m) {
		return fmt.Errorf("expected a MAC address of six bytes such as 02:00:5e:10:00:01, found %q", text)
	}
	copy(m[:], hw)
	return nil
}

// LinkLocal is the IPv6 address that follows from a MAC (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// Host is all that one host should have.
type Host struct {
	Networks    []Network
	Attachments []Attachment
	// Withdrawn are addresses of attachments that this host has lost to others: nothing leads to them here, so that packets
	// for them go to who has them now, and what the containers send is dropped.
	Withdrawn map[netip.Addr]bool
}

// Network is one overlay network as this host takes part in it.
type Network struct {
	Name   string
	CIDR   netip.Prefix
	CIDR6  netip.Prefix // invalid: IPv4 only
	VNI    uint32
	Port   uint16 // UDP port of VXLAN
	MTU    int    // of containers' links and of the VXLAN device, in bytes
	Node   netip.Addr
	Node6  netip.Addr
	Blocks []netip.Prefix // leased to this host, of both families
	// Allow names the networks whose containers may talk to this one's; that goes both ways. Open lets this one's
	// containers reach the host's own services.
	Allow []string
	Open  bool
	// Underlay is this node's VTEP. Without one (a single host) there is no VXLAN device and there are no peers.
	Underlay VTEP
	Peers    []Peer
}

// VTEP is one end of the VXLAN tunnels: address on the underlay, and MAC inside.
type VTEP struct {
	Addr netip.Addr
	MAC  MAC
	// Inside is an IPv4 address of the host's on the network: the next hop where the underlay is IPv6. Invalid when it has
	// none, and so no IPv4 block.
	Inside netip.Addr
}

// hop is the next hop to what is behind v: an address that leads to its MAC, of the family of dst.
func (v VTEP) hop(dst netip.Prefix) netip.Addr {
	switch {
	case dst.Addr().Is6():
		return v.MAC.LinkLocal()
	case v.Addr.Is6():
		return v.Inside
	}
	return v.Addr
}

// Has tells whether a is one of the addresses by which v is spoken of in routes and neighbour entries.
func (v VTEP) Has(a netip.Addr) bool { return a == v.Addr || a == v.MAC.LinkLocal() || a == v.Inside }

// Peer is another host of a network.
type Peer struct {
	Name   string
	VTEP   VTEP
	Blocks []netip.Prefix
	// Lost are blocks of others that it may still believe to hold: what it sends from there is dropped.
	Lost []netip.Prefix
	// Near is the device behind which the peer is on the same segment, with its MAC there: what it sends plainly from its
	// IPv4 blocks is taken, whichever way we have chosen. Empty: only by VXLAN.
	Near string
	MAC  MAC
	// Direct: packets for its IPv4 blocks go plainly.
	Direct bool
	// MTU is what its path carries by VXLAN, DirectMTU plainly, in bytes; 0: as much as the device.
	MTU, DirectMTU int
}

// isDirect tells whether packets for block go plainly.
func (p Peer) isDirect(block netip.Prefix) bool {
	return p.Near != "" && p.Direct && block.Addr().Is4()
}

// mtu is that of the routes to block; 0: the device's. IPv6 knows none below 1280 (RFC 8200, section 5).
func (p Peer) mtu(block netip.Prefix) int {
	switch {
	case p.isDirect(block):
		return p.DirectMTU
	case p.MTU > 0 && block.Addr().Is6():
		return max(p.MTU, 1280)
	}
	return p.MTU
}

// hops gives the next hops of all its blocks, each once.
func (p Peer) hops() []netip.Addr {
	var out []netip.Addr
	for _, b := range p.Blocks {
		if hop := p.VTEP.hop(b); !slices.Contains(out, hop) {
			out = append(out, hop)
		}
	}
	return out
}

// CIDRs gives the network's prefixes, IPv4 first.
func (n Network) CIDRs() []netip.Prefix {
	if n.CIDR6.IsValid() {
		return []netip.Prefix{n.CIDR, n.CIDR6}
	}
	return []netip.Prefix{n.CIDR}
}

// NodeOf gives the host's own address on the network in the family of dst; invalid when it has none.
func (n Network) NodeOf(dst netip.Prefix) netip.Addr {
	if dst.Addr().Is6() {
		return n.Node6
	}
	return n.Node
}

// Device is the name of the network's VXLAN device.
func (n Network) Device() string { return fmt.Sprintf("%s%d", VXLANPrefix, n.VNI) }

// VTEPMAC derives a node's inner MAC from its stable name and the VNI, so that it is the same after every restart and
// every host can compute it. The first byte says "locally administered, unicast".
func VTEPMAC(node string, vni uint32) MAC {
	sum := sha256.Sum256(fmt.Appendf(nil, "vtep %d %s", vni, node))
	return MAC{0x02, 0xfa, sum[0], sum[1], sum[2], sum[3]}
}

// Key names an attachment: the same container may have several interfaces.
type Key struct {
	Owner  string `json:"owner"` // CNI_CONTAINERID, or what another door uses
	IfName string `json:"ifname"`
}

func (k Key) String() string { return k.Owner + "/" + k.IfName }

// Link is the name of the host link for the key. It does not depend on anything that a restart could change.
func (k Key) Link() string {
	sum := sha256.Sum256([]byte(k.Owner + "\x00" + k.IfName))
	return LinkPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:12])
}

// Attachment is one container on one network.
type Attachment struct {
	Key
	Runtime string     `json:"runtime,omitempty"` // whose it is: the key "owner" of the CNI configuration
	Network string     `json:"network"`
	Addr    netip.Addr `json:"addr"`
	Addr6   netip.Addr `json:"addr6,omitzero"`
	Node    netip.Addr `json:"node"` // the host's own address on the network: source of what the host sends
	Node6   netip.Addr `json:"node6,omitzero"`
	MTU     int        `json:"mtu"`
	MAC     MAC        `json:"mac,omitzero"` // asked for; zero: ContainerMAC derives it
	// Default tells that the container's default route goes here; else only Reach does. One interface has it.
	Default  bool         `json:"default"`
	Default6 bool         `json:"default6,omitempty"`
	Reach    netip.Prefix `json:"reach"`
	Reach6   netip.Prefix `json:"reach6,omitzero"`
	Ports    []Port       `json:"ports,omitempty"`
	NetNS    string       `json:"netns"` // the path that was given
	NSID     string       `json:"nsid"`  // "dev:inode" of the namespace
}

// Addrs gives the container's addresses, IPv4 first.
func (a Attachment) Addrs() []netip.Addr {
	if a.Addr6.IsValid() {
		return []netip.Addr{a.Addr, a.Addr6}
	}
	return []netip.Addr{a.Addr}
}

// ContainerMAC is the address of the container's end. When none was asked for it follows from the IP address: whoever
// gets the address later gets the MAC as well, and no neighbour entry anywhere turns stale.
func (a Attachment) ContainerMAC() MAC {
	if a.MAC != (MAC{}) {
		return a.MAC
	}
	ip := a.Addr.As4()
	return MAC{0x02, 0xfa, ip[0], ip[1], ip[2], ip[3]}
}

// maxAlias is what the kernel keeps of a link's alias: IFALIASZ without the last byte.
const maxAlias = 255

// Alias is what the host link's alias says: everything that is needed to know the attachment again when the journal
// is lost. It is written last, so a link that has it is complete. The runtime is left out where there is no room.
func (a Attachment) Alias() string {
	addrs := a.Addr.String()
	if a.Addr6.IsValid() {
		addrs += "," + a.Addr6.String()
	}
	with := func(nsid string) string {
		return fmt.Sprintf("fairlead %s %s %s %s %s", a.Network, addrs, a.IfName, nsid, a.Owner)
	}
	if whole := with(a.NSID + "@" + url.QueryEscape(a.Runtime)); a.Runtime != "" && len(whole) <= maxAlias {
		return whole
	}
	return with(a.NSID)
}

// ParseAlias reads what Alias wrote.
func ParseAlias(alias string) (Attachment, bool) {
	f := strings.SplitN(alias, " ", 6)
	if len(f) != 6 || f[0] != "fairlead" {
		return Attachment{}, false
	}
	four, six, dual := strings.Cut(f[2], ",")
	nsid, runtime, _ := strings.Cut(f[4], "@")
	a := Attachment{Key: Key{Owner: f[5], IfName: f[3]}, Network: f[1], NSID: nsid}
	var err, err6, errRuntime error
	a.Addr, err = netip.ParseAddr(four)
	if dual {
		a.Addr6, err6 = netip.ParseAddr(six)
	}
	a.Runtime, errRuntime = url.QueryUnescape(runtime)
	return a, err == nil && err6 == nil && errRuntime == nil && a.Addr.Is4()
}
