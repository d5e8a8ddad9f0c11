package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Table is the content of our nftables table: what varies in it. Its rules are a constant number, however many
// containers, networks and ports there are; the rest are sets and maps.
type Table struct {
	// Overlay has the CIDRs of all networks. Pairs says who may talk to whom: source and destination, of one family.
	// Open has the CIDRs whose containers may reach the host itself.
	Overlay []netip.Prefix
	Pairs   []Pair
	Open    []netip.Prefix
	Tunnels []Tunnel
	// Elements are those of each attachment and each peer.
	Elements
}

// Tunnel is a VXLAN of ours: UDP port and network identifier.
type Tunnel struct {
	Port uint16
	VNI  uint32
}

// MACBlock is a block of addresses and a MAC that may send for it.
type MACBlock struct {
	MAC   MAC
	Block netip.Prefix
}

func (m MACBlock) compare(n MACBlock) int {
	return cmp.Or(bytes.Compare(m.MAC[:], n.MAC[:]), m.Block.Compare(n.Block))
}

// Pair lets packets pass from one prefix to another.
type Pair struct{ From, To netip.Prefix }

// LinkMAC is a container's link and the one MAC address that may speak on it.
type LinkMAC struct {
	Dev string
	MAC MAC
}

func (l LinkMAC) compare(m LinkMAC) int {
	return cmp.Or(cmp.Compare(l.Dev, m.Dev), bytes.Compare(l.MAC[:], m.MAC[:]))
}

// sameNetworks compares the sets of networks, which change seldom, and not those of attachments.
func (t Table) sameNetworks(u Table) bool {
	return slices.Equal(t.Overlay, u.Overlay) && slices.Equal(t.Pairs, u.Pairs) && slices.Equal(t.Open, u.Open) && slices.Equal(t.Tunnels, u.Tunnels)
}

// String gives what varies, as nft would show it.
func (t Table) String() string {
	var sets []string
	set := func(name string, n int, element func(i int) string) {
		var all []string
		for i := range n {
			all = append(all, element(i))
		}
		sets = append(sets, fmt.Sprintf("%s { %s }", name, strings.Join(all, ", ")))
	}
	set("overlay", len(t.Overlay), func(i int) string { return t.Overlay[i].String() })
	set("pairs", len(t.Pairs), func(i int) string { return t.Pairs[i].String() })
	set("open", len(t.Open), func(i int) string { return t.Open[i].String() })
	set("links", len(t.Links), func(i int) string { return t.Links[i].Dev + " . " + t.Links[i].MAC.String() })
	set("tunnels", len(t.Tunnels), func(i int) string { return fmt.Sprintf("%d . %d", t.Tunnels[i].Port, t.Tunnels[i].VNI) })
	set("vteps", len(t.VTEPs), func(i int) string { return t.VTEPs[i].String() })
	set("direct", len(t.Direct), func(i int) string { return t.Direct[i].MAC.String() + " . " + t.Direct[i].Block.String() })
	set("disowned", len(t.Disowned), func(i int) string { return t.Disowned[i].MAC.String() + " . " + t.Disowned[i].Block.String() })
	set("ports", len(t.Forwards), func(i int) string { return t.Forwards[i].String() })
	return fmt.Sprintf("table inet %s { %s } # and its %d rules", TableName, strings.Join(sets, " "), len(Rules()))
}

func (p Pair) String() string { return fmt.Sprintf("%s . %s", p.From, p.To) }

func wantTable(want Host) Table {
	var t Table
	for _, n := range want.Networks {
		t.Overlay = append(t.Overlay, n.CIDRs()...)
		if n.Open {
			t.Open = append(t.Open, n.CIDRs()...)
		}
		if n.Underlay.Addr.IsValid() {
			t.Tunnels = append(t.Tunnels, Tunnel{n.Port, n.VNI})
		}
		for _, p := range n.Peers {
			t.VTEPs = append(t.VTEPs, p.VTEP.Addr)
			t.Direct = append(t.Direct, p.plain()...)
			for _, b := range p.Lost {
				t.Disowned = append(t.Disowned, MACBlock{p.VTEP.MAC, b})
			}
		}
		for _, m := range want.Networks {
			if n.Name == m.Name || slices.Contains(n.Allow, m.Name) || slices.Contains(m.Allow, n.Name) {
				t.Pairs = append(t.Pairs, pairs(n, m)...)
			}
		}
	}
	for _, a := range want.Attachments {
		t.Links = append(t.Links, Speaker(a))
		for _, f := range Forwards(a) {
			if !want.Withdrawn[f.To.Addr()] {
				t.Forwards = append(t.Forwards, f)
			}
		}
	}
	t.Hairpins = hairpins(t.Forwards)
	t.Sort()
	return t
}

// plain gives who may send for the blocks of a peer on the segment: the peer itself, and its VTEP. It does not depend on
// the path that we have chosen: the peer may have chosen another.
func (p Peer) plain() []MACBlock {
	var out []MACBlock
	for _, b := range p.Blocks {
		if p.Near != "" && b.Addr().Is4() {
			out = append(out, MACBlock{p.MAC, b}, MACBlock{p.VTEP.MAC, b})
		}
	}
	return out
}

func hairpins(forwards []Forward) []netip.Addr {
	var out []netip.Addr
	for _, f := range forwards {
		out = append(out, f.To.Addr())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func pairs(from, to Network) []Pair {
	out := []Pair{{from.CIDR, to.CIDR}}
	if from.CIDR6.IsValid() && to.CIDR6.IsValid() {
		out = append(out, Pair{from.CIDR6, to.CIDR6})
	}
	return out
}

// Sort brings the sets into the order in which tables are compared.
func (t *Table) Sort() {
	slices.SortFunc(t.Overlay, netip.Prefix.Compare)
	slices.SortFunc(t.Open, netip.Prefix.Compare)
	slices.SortFunc(t.Pairs, func(p, q Pair) int { return cmp.Or(p.From.Compare(q.From), p.To.Compare(q.To)) })
	slices.SortFunc(t.Links, LinkMAC.compare)
	slices.SortFunc(t.Forwards, Forward.compare)
	slices.SortFunc(t.Hairpins, netip.Addr.Compare)
	slices.SortFunc(t.Tunnels, func(a, b Tunnel) int { return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.VNI, b.VNI)) })
	slices.SortFunc(t.VTEPs, netip.Addr.Compare)
	t.VTEPs = slices.Compact(t.VTEPs)
	slices.SortFunc(t.Direct, MACBlock.compare)
	t.Direct = slices.Compact(t.Direct)
	slices.SortFunc(t.Disowned, MACBlock.compare)
	t.Disowned = slices.Compact(t.Disowned)
}

// Speaker is who may speak on a's link.
func Speaker(a Attachment) LinkMAC { return LinkMAC{a.Link(), a.ContainerMAC()} }

// tableSteps leads from have to want: whole when rules or networks differ, else by element.
func tableSteps(want Table, have *Table) []Step {
	if have == nil || !want.sameNetworks(*have) {
		return []Step{ReplaceTable{want}}
	}
	var steps []Step
	if extra := want.missingFrom(have.Elements, true); !extra.empty() {
		steps = append(steps, Dismiss{extra})
	}
	if missing := want.missingFrom(have.Elements, false); !missing.empty() {
		steps = append(steps, Admit{missing})
	}
	return steps
}
