package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Observed is what the host has of ours, and of what concerns us.
type Observed struct {
	Links   []Link // of our groups
	Addrs   []Addr // on our links
	Routes  []Route
	Neighs  []Neigh // permanent ones on our links
	FDB     []FDB   // on our VXLAN devices
	Sysctls map[string]string
	Table   *Table // nil: absent, or not as we made it
}

// WithoutRetired leaves out links that wait for their deletion, and what stands on them: while the agent runs they are
// nothing that somebody changed.
func (o Observed) WithoutRetired() Observed {
	retired := map[string]bool{}
	for _, l := range o.Links {
		retired[l.Name] = l.Retired
	}
	o.Links = only(o.Links, func(l Link) bool { return !l.Retired })
	o.Routes = only(o.Routes, func(r Route) bool { return !retired[r.Dev] })
	o.Neighs = only(o.Neighs, func(n Neigh) bool { return !retired[n.Dev] })
	return o
}

// NameOf is what a link is to be called: its name, unless somebody renamed it. Then the alias of a container's link tells.
func (o Observed) NameOf(l Link) string {
	a, ok := ParseAlias(l.Alias)
	if name := a.Link(); ok && name != l.Name && !slices.ContainsFunc(o.Links, func(other Link) bool { return other.Name == name }) {
		return name
	}
	return l.Name
}

// Link is one of our devices. The zero value of a field is "not applicable".
type Link struct {
	Name  string
	Kind  string // "veth" or "vxlan"
	MTU   int
	MAC   MAC
	Up    bool
	Group uint32
	VXLAN VXLAN

	Index   int    // observed only
	Alias   string // observed only
	Retired bool   // observed only: in RetiredGroup
}

// VXLAN is what makes a VXLAN device.
type VXLAN struct {
	VNI   uint32
	Port  uint16
	Local netip.Addr
}

// Addr is an address of a device.
type Addr struct {
	Dev    string
	Prefix netip.Prefix
}

// Route is one route of the main table.
type Route struct {
	Dst         netip.Prefix
	Unreachable bool       // answered with ICMP unreachable instead of sent
	Dev         string     // empty for unreachable ones
	Via         netip.Addr // next hop; invalid for routes of scope link
	OnLink      bool
	Src         netip.Addr // source of packets from the host itself
	MTU         int        // bytes; 0: the device's
	Metric      uint32     // of IPv4; see Network.metric
}

func (r Route) String() string {
	if r.Unreachable {
		return fmt.Sprintf("unreachable %s proto %d", r.Dst, Protocol)
	}
	var b strings.Builder
	b.WriteString(r.Dst.String())
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	fmt.Fprintf(&b, " dev %s", r.Dev)
	if r.OnLink {
		b.WriteString(" onlink")
	}
	if !r.Via.IsValid() {
		b.WriteString(" scope link")
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Metric > 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU > 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	fmt.Fprintf(&b, " proto %d", Protocol)
	return b.String()
}

// Neigh is a permanent neighbour entry.
type Neigh struct {
	Dev string
	IP  netip.Addr
	MAC MAC
}

// FDB is a forwarding entry of a VXLAN device: behind which VTEP a MAC is.
type FDB struct {
	Dev string
	MAC MAC
	Dst netip.Addr
}
