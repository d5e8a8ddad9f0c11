// Package plan decides what the host's networking should be and which steps lead there. It is pure: values in, values
// out; package kernel observes and applies.
//
//	container eth0 10.42.1.2/32 ── veth ── flc7f1… ──┐ routed, no bridge
//	                                                 ├── fl-vx42 ══ UDP 4789 ══ fl-vx42 (peer)
//	10.42.2.0/24 via 192.0.2.12 onlink ──────────────┘
//
// Every object carries our mark so that it is known after a total loss of state: links by group, routes by protocol
// number, the nftables table by its name; neighbours and FDB entries die with our devices.
package plan

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"
)

// The marks.
const (
	// Protocol is the routing protocol number of our routes. iproute2's rt_protos leaves 94 free.
	Protocol = 94
	// Group is the link group of our devices; RetiredGroup that of links that wait to be deleted in a batch.
	Group        = 64030
	RetiredGroup = 64031
	// TableName is the one nftables table (family inet).
	TableName = "fairlead"
	// LinkPrefix begins the name of a container's host link, VXLANPrefix that of a network's VXLAN device.
	LinkPrefix  = "flc"
	VXLANPrefix = "fl-vx"
)

// Gateway is the container's next hop. It is link-local and the same everywhere; a permanent neighbour entry in the
// container maps it to HostMAC, so nobody ever asks for it by ARP (Linux delays proxied answers by up to 0.8 s).
var Gateway = netip.MustParseAddr("169.254.77.1")

// HostMAC is the address of every host end of a container's link. Each is alone on its link, so they may be equal.
var HostMAC = MAC{0x02, 0xfa, 0x1e, 0xad, 0x00, 0x01}

// MAC is a link-layer address, comparable.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Host is all that one host should have.
type Host struct {
	Networks    []Network
	Attachments []Attachment
}

// Network is one overlay network as this host takes part in it.
type Network struct {
	Name   string
	CIDR   netip.Prefix
	VNI    uint32
	Port   uint16 // UDP port of VXLAN
	MTU    int    // of containers' links and of the VXLAN device, in bytes
	Node   netip.Addr
	Blocks []netip.Prefix // leased to this host
	// Underlay is this node's VTEP. Without one (a single host) there is no VXLAN device and there are no peers.
	Underlay VTEP
	Peers    []Peer
}

// VTEP is one end of the VXLAN tunnels: address on the underlay, and MAC inside.
type VTEP struct {
	Addr netip.Addr
	MAC  MAC
}

// Peer is another host of a network.
type Peer struct {
	Name   string
	VTEP   VTEP
	Blocks []netip.Prefix
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
	Network string     `json:"network"`
	Addr    netip.Addr `json:"addr"`
	Node    netip.Addr `json:"node"` // the host's own address on the network: source of what the host sends
	MTU     int        `json:"mtu"`
	// Default tells that the container's default route goes here; else only Reach does. One interface has it.
	Default bool         `json:"default"`
	Reach   netip.Prefix `json:"reach"`
	NetNS   string       `json:"netns"` // the path that was given
	NSID    string       `json:"nsid"`  // "dev:inode" of the namespace
}

// ContainerMAC is the address of the container's end. It follows from the IP address: whoever gets the address later
// gets the MAC as well, and no neighbour entry anywhere turns stale.
func (a Attachment) ContainerMAC() MAC {
	ip := a.Addr.As4()
	return MAC{0x02, 0xfa, ip[0], ip[1], ip[2], ip[3]}
}

// Alias is what the host link's alias says: everything that is needed to know the attachment again when the journal
// is lost. It is written last, so a link that has it is complete.
func (a Attachment) Alias() string {
	return fmt.Sprintf("fairlead %s %s %s %s %s", a.Network, a.Addr, a.IfName, a.NSID, a.Owner)
}

// ParseAlias reads what Alias wrote.
func ParseAlias(alias string) (Attachment, bool) {
	f := strings.SplitN(alias, " ", 6)
	if len(f) != 6 || f[0] != "fairlead" {
		return Attachment{}, false
	}
	addr, err := netip.ParseAddr(f[2])
	if err != nil {
		return Attachment{}, false
	}
	return Attachment{Key: Key{Owner: f[5], IfName: f[3]}, Network: f[1], Addr: addr, NSID: f[4]}, true
}
