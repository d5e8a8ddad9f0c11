package plan

import (
	"fmt"
	"net/netip"
)

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
	both(func(f family) {
		add(NoForeignVXLAN, f.v6, 0, ChainAntispoof, "udp dport . @th,96,32 @tunnels %s saddr != @vteps%s drop", f.ip, f.n)
	})
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
