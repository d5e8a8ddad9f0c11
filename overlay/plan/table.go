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

// Elements are members of the table's sets and maps that attachments and peers have.
type Elements struct {
	Links    []LinkMAC
	Forwards []Forward
	// Hairpins are the addresses that may reach themselves by a port of the host: those that a forward leads to.
	Hairpins []netip.Addr
	// VTEPs are the peers' addresses on the underlay, from which alone VXLAN packets are taken. Direct says which MAC may
	// send for which addresses, for peers that are on the same segment.
	VTEPs  []netip.Addr
	Direct []MACBlock
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

// RuleKind tells package kernel which expressions a rule has.
type RuleKind int

// The rules.
const (
	AntispoofMAC RuleKind = iota
	AntispoofAddr
	AntispoofPeer
	NoOutsiders
	NoPlainOutsiders
	NoForeignVXLAN
	NoLoopback
	PassKnown
	PassForwarded
	Isolate
	PassToDoor
	PassOpen
	Drop
	ForwardOn
	ForwardAny
	Masquerade
	MasqueradeLoopback
	MasqueradeHairpin
)

// Rule is one rule; its text is also its comment in the kernel, by which it is recognised.
type Rule struct {
	Kind  RuleKind
	V6    bool
	Group uint32 // where the rule is for one group of links
	Chain string
	Text  string
}

// The chains, in the order in which a packet meets them.
const (
	ChainAntispoof = "antispoof"
	ChainPorts     = "ports"
	ChainOwnPorts  = "ownports" // as ChainPorts, for what the host itself sends
	ChainShield    = "shield"
	ChainIsolate   = "isolate"
	ChainLeave     = "leave"
)

// Rules gives the rules of the table, by chain and in order. They are the same for every Table.
func Rules() []Rule {
	var out []Rule
	add := func(kind RuleKind, v6 bool, group uint32, chain, format string, args ...any) {
		out = append(out, Rule{kind, v6, group, chain, fmt.Sprintf(format, args...)})
	}
	both := func(each func(f family)) {
		each(family{false, "ip", "4", Gateway})
		each(family{true, "ip6", "6", Gateway6})
	}
	// After DEL the old link passes nothing. A container may speak with its own MAC only; and it, like a peer, may send
	// only what would be routed back to it: its own addresses.
	add(Drop, false, RetiredGroup, ChainAntispoof, "iifgroup %d drop", RetiredGroup)
	add(AntispoofMAC, false, Group, ChainAntispoof, "iifgroup %d iifname . ether saddr != @links drop", Group)
	both(func(f family) {
		add(AntispoofAddr, f.v6, Group, ChainAntispoof, "iifgroup %d meta nfproto ipv%s fib saddr . iif oif missing drop", Group, f.n)
	})
	// A peer too, unless it is one that is also reached plainly. Who else sends from overlay addresses is an impostor, and
	// so is who speaks one of our VXLANs and is no peer.
	add(AntispoofPeer, false, TunnelGroup, ChainAntispoof, "iifgroup %d meta nfproto ipv4 fib saddr . iif oif missing ether saddr . ip saddr != @direct drop", TunnelGroup)
	add(AntispoofAddr, true, TunnelGroup, ChainAntispoof, "iifgroup %d meta nfproto ipv6 fib saddr . iif oif missing drop", TunnelGroup)
	add(NoOutsiders, false, 0, ChainAntispoof, "iifgroup != { %d, %d, %d } iif != lo ip saddr @overlay4 ether saddr . ip saddr != @direct drop", Group, RetiredGroup, TunnelGroup)
	// The rule before speaks of Ethernet and passes over a tunnel's packets (tun, WireGuard, GRE), which have no MAC.
	add(NoPlainOutsiders, false, 0, ChainAntispoof, "iifgroup != { %d, %d, %d } iif != lo iiftype != ether ip saddr @overlay4 drop", Group, RetiredGroup, TunnelGroup)
	add(NoOutsiders, true, 0, ChainAntispoof, "iifgroup != { %d, %d, %d } iif != lo ip6 saddr @overlay6 drop", Group, RetiredGroup, TunnelGroup)
	add(NoForeignVXLAN, false, 0, ChainAntispoof, "udp dport . @th,96,32 @tunnels ip saddr != @vteps drop")
	// The links have route_localnet for the host's own 127.0.0.1:PORT; nobody may use it from the other side.
	add(NoLoopback, false, Group, ChainAntispoof, "iifgroup %d ip daddr 127.0.0.0/8 drop", Group)
	for _, chain := range []string{ChainPorts, ChainOwnPorts} {
		both(func(f family) {
			add(ForwardOn, f.v6, 0, chain, "fib daddr type local dnat %s to %s daddr . meta l4proto . th dport map @on%s", f.ip, f.ip, f.n)
		})
		both(func(f family) {
			add(ForwardAny, f.v6, 0, chain, "fib daddr type local dnat %s to meta l4proto . th dport map @any%s", f.ip, f.n)
		})
	}
	// From a container or a peer's container only the inside door of the host is reachable.
	add(PassKnown, false, 0, ChainShield, "ct state established,related accept")
	for _, g := range []uint32{Group, TunnelGroup} {
		both(func(f family) {
			add(PassToDoor, f.v6, g, ChainShield, "iifgroup %d %s daddr %s accept", g, f.ip, f.gateway)
		})
		both(func(f family) {
			add(PassOpen, f.v6, g, ChainShield, "iifgroup %d %s saddr @open%s accept", g, f.ip, f.n)
		})
		add(Drop, false, g, ChainShield, "iifgroup %d drop", g)
	}
	// What is published is for everybody; else only those may reach a container that its network lets in.
	add(PassKnown, false, 0, ChainIsolate, "ct state established,related accept")
	add(PassForwarded, false, 0, ChainIsolate, "ct status dnat accept")
	both(func(f family) {
		add(Isolate, f.v6, 0, ChainIsolate, "%[1]s daddr @overlay%[2]s %[1]s saddr . %[1]s daddr != @pairs%[2]s drop", f.ip, f.n)
	})
	both(func(f family) {
		add(Masquerade, f.v6, 0, ChainLeave, "%s saddr @overlay%s %s daddr != @overlay%s masquerade", f.ip, f.n, f.ip, f.n)
	})
	both(func(f family) {
		add(MasqueradeHairpin, f.v6, 0, ChainLeave, "%s saddr . %s daddr @hairpin%s masquerade", f.ip, f.ip, f.n)
	})
	add(MasqueradeLoopback, false, Group, ChainLeave, "oifgroup %d ip saddr 127.0.0.0/8 masquerade", Group)
	return out
}

// family is how a rule speaks of one.
type family struct {
	v6      bool
	ip, n   string
	gateway netip.Addr
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
		}
		for _, m := range want.Networks {
			if n.Name == m.Name || slices.Contains(n.Allow, m.Name) || slices.Contains(m.Allow, n.Name) {
				t.Pairs = append(t.Pairs, pairs(n, m)...)
			}
		}
	}
	for _, a := range want.Attachments {
		t.Links = append(t.Links, Speaker(a))
		t.Forwards = append(t.Forwards, Forwards(a)...)
	}
	t.Hairpins = hairpins(t.Forwards)
	t.Sort()
	return t
}

// plain gives who may send for the blocks of a peer that is reached plainly: the peer itself, and its VTEP as long as
// it has not found us here.
func (p Peer) plain() []MACBlock {
	var out []MACBlock
	for _, b := range p.Blocks {
		if p.isDirect(b) {
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

// missingFrom gives what e has and have has not; reversed, the other way round.
func (e Elements) missingFrom(have Elements, reversed bool) Elements {
	if reversed {
		e, have = have, e
	}
	return Elements{
		without(e.Links, have.Links), without(e.Forwards, have.Forwards), without(e.Hairpins, have.Hairpins),
		without(e.VTEPs, have.VTEPs), without(e.Direct, have.Direct),
	}
}

func without[T comparable](list, others []T) []T {
	in := make(map[T]bool, len(others))
	for _, o := range others {
		in[o] = true
	}
	return only(list, func(v T) bool { return !in[v] })
}

func (e Elements) empty() bool {
	return len(e.Links)+len(e.Forwards)+len(e.Hairpins)+len(e.VTEPs)+len(e.Direct) == 0
}

// elementsOf gives those of one attachment.
func elementsOf(a Attachment) Elements {
	f := Forwards(a)
	return Elements{Links: []LinkMAC{Speaker(a)}, Forwards: f, Hairpins: hairpins(f)}
}

// lines gives a command for each element.
func (e Elements) lines(verb string) string {
	var out []string
	line := func(set, format string, args ...any) {
		out = append(out, fmt.Sprintf("nft %s element inet %s %s { %s }", verb, TableName, set, fmt.Sprintf(format, args...)))
	}
	for _, l := range e.Links {
		line("links", "%s . %s", l.Dev, l.MAC)
	}
	for _, f := range e.Forwards {
		n := map[bool]string{true: "4", false: "6"}[f.Host.Addr().Is4()]
		if f.Host.Addr().IsUnspecified() {
			line("any"+n, "%s . %d : %s . %d", f.Protocol, f.Host.Port(), f.To.Addr(), f.To.Port())
		} else {
			line("on"+n, "%s . %s . %d : %s . %d", f.Host.Addr(), f.Protocol, f.Host.Port(), f.To.Addr(), f.To.Port())
		}
	}
	for _, a := range e.Hairpins {
		line("hairpin"+map[bool]string{true: "4", false: "6"}[a.Is4()], "%s . %s", a, a)
	}
	for _, a := range e.VTEPs {
		line("vteps", "%s", a)
	}
	for _, d := range e.Direct {
		line("direct", "%s . %s", d.MAC, d.Block)
	}
	return strings.Join(out, "\n")
}
