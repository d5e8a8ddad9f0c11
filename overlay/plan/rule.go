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
	NoDisowned
	NoOutsiders
	NoPlainOutsiders
	TakePeersVXLAN
	NoForeignVXLAN
	NoLoopback
	PassKnown
	PassForwarded
	PassPair
	Isolate
	PassToDoor
	PassOpen
	PassProbe
	PassAnswer
	RefuseProbe
	UntrackAnswer
	UntrackVXLAN
	Turn
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
	To    string // the chain that Turn goes to
	Text  string
}

// ProbePort is a UDP port at which a peer's kernel refuses what `net check` sends, to show that UDP arrives whole.
const ProbePort = 33434

// ProbeID is the identifier of the probes' echoes (RFC 792), by which rules know the answers.
const ProbeID = 0xfa1d

// The chains, in the order in which a packet meets them.
const (
	ChainAntispoof = "antispoof"
	ChainPorts     = "ports"
	ChainOwnPorts  = "ownports" // as ChainPorts, for what the host itself sends
	ChainShield    = "shield"
	ChainIsolate   = "isolate"
	ChainLeave     = "leave"
	// ChainUntrack keeps our own VXLAN packets out of connection tracking: each inner packet has its own entry, and each
	// inner flow would make one more.
	ChainUntrack = "untrack"
)

// The chains that the first ones turn to, so that a packet meets the rules for its kind of link and no others: what it
// does not match costs most.
const (
	ChainContainers     = "containers"
	ChainPeers          = "peers"
	ChainOuter          = "outer" // VXLAN packets of ours, not what is in them
	ChainHostContainers = "hostcontainers"
	ChainHostPeers      = "hostpeers"
)

// Rules gives the rules of the table, by chain and in order. They are the same for every Table.
func Rules() []Rule {
	var out []Rule
	add := func(kind RuleKind, v6 bool, group uint32, chain, format string, args ...any) {
		out = append(out, Rule{Kind: kind, V6: v6, Group: group, Chain: chain, Text: fmt.Sprintf(format, args...)})
	}
	turn := func(group uint32, chain, to string) {
		out = append(out, Rule{Kind: Turn, Group: group, Chain: chain, To: to, Text: fmt.Sprintf("iifgroup %d goto %s", group, to)})
	}
	both := func(each func(f family)) {
		each(family{false, "ip", "4", Gateway})
		each(family{true, "ip6", "6", Gateway6})
	}
	const vxlan = "udp dport . @th,96,32 @tunnels"
	// After DEL the old link passes nothing.
	add(Drop, false, RetiredGroup, ChainAntispoof, "iifgroup %d drop", RetiredGroup)
	turn(Group, ChainAntispoof, ChainContainers)
	turn(TunnelGroup, ChainAntispoof, ChainPeers)
	// Who speaks one of our VXLANs is a peer. Who else sends from overlay addresses is an impostor.
	out = append(out, Rule{Kind: Turn, Chain: ChainAntispoof, To: ChainOuter, Text: vxlan + " goto " + ChainOuter})
	add(NoOutsiders, false, 0, ChainAntispoof, "iif != lo ip saddr @overlay4 ether saddr . ip saddr != @direct drop")
	// The rule before speaks of Ethernet and passes over a tunnel's packets (tun, WireGuard, GRE), which have no MAC.
	add(NoPlainOutsiders, false, 0, ChainAntispoof, "iif != lo iiftype != ether ip saddr @overlay4 drop")
	add(NoOutsiders, true, 0, ChainAntispoof, "iif != lo ip6 saddr @overlay6 drop")
	both(func(f family) {
		add(TakePeersVXLAN, f.v6, 0, ChainOuter, "%s saddr @vteps%s notrack accept", f.ip, f.n)
	})
	add(Drop, false, 0, ChainOuter, "drop")
	add(UntrackVXLAN, false, 0, ChainUntrack, vxlan+" notrack")
	// A container may speak with its own MAC only; and it, like a peer, may send only what would be routed back to it: its
	// own addresses.
	add(AntispoofMAC, false, 0, ChainContainers, "iifname . ether saddr != @links drop")
	both(func(f family) {
		add(AntispoofAddr, f.v6, 0, ChainContainers, "meta nfproto ipv%s fib saddr . iif oif missing drop", f.n)
	})
	// The links have route_localnet for the host's own 127.0.0.1:PORT; nobody may use it from the other side.
	add(NoLoopback, false, 0, ChainContainers, "ip daddr 127.0.0.0/8 drop")
	// A peer too, unless it is one that is also reached plainly.
	add(AntispoofPeer, false, 0, ChainPeers, "meta nfproto ipv4 fib saddr . iif oif missing ether saddr . ip saddr != @direct drop")
	add(AntispoofAddr, true, 0, ChainPeers, "meta nfproto ipv6 fib saddr . iif oif missing drop")
	// The route back tells the network only, for all its peers are behind one device: who has lost addresses to another
	// peer, and does not know, is told apart by his MAC. Plainly only those pass that are listed.
	both(func(f family) {
		add(NoDisowned, f.v6, 0, ChainPeers, "ether saddr . %s saddr @disowned%s drop", f.ip, f.n)
	})
	for _, chain := range []string{ChainContainers, ChainPeers} {
		add(NoForeignVXLAN, false, 0, chain, vxlan+" drop")
	}
	// The probes' questions bypass connection tracking, so their answers would be invalid to it, and dropped by many.
	for _, chain := range []string{ChainAntispoof, ChainPeers} {
		add(UntrackAnswer, false, 0, chain, "icmp type echo-reply icmp id %d ip saddr @overlay4 notrack", ProbeID)
	}
	for _, chain := range []string{ChainPorts, ChainOwnPorts} {
		both(func(f family) {
			add(ForwardOn, f.v6, 0, chain, "fib daddr type local dnat %s to %s daddr . meta l4proto . th dport map @on%s", f.ip, f.ip, f.n)
		})
		both(func(f family) {
			add(ForwardAny, f.v6, 0, chain, "fib daddr type local dnat %s to meta l4proto . th dport map @any%s", f.ip, f.n)
		})
	}
	// From a container or a peer's container only the inside door of the host is reachable.
	turn(Group, ChainShield, ChainHostContainers)
	turn(TunnelGroup, ChainShield, ChainHostPeers)
	refuse := func(chain string) {
		add(RefuseProbe, false, 0, chain, "ip ttl 255 ip saddr @overlay4 udp dport %d reject", ProbePort)
	}
	refuse(ChainShield)
	for _, chain := range []string{ChainHostContainers, ChainHostPeers} {
		add(PassKnown, false, 0, chain, "ct state established,related accept")
		both(func(f family) {
			add(PassToDoor, f.v6, 0, chain, "%s daddr %s accept", f.ip, f.gateway)
		})
		both(func(f family) {
			add(PassOpen, f.v6, 0, chain, "%s saddr @open%s accept", f.ip, f.n)
		})
		if chain == ChainHostPeers {
			// A peer itself may ask for an echo, and be told that a port is closed: what a probe sends has the TTL 255, which
			// whatever was forwarded has not (RFC 5082). So a peer's containers may not.
			add(PassProbe, false, 0, chain, "ip ttl 255 icmp type echo-request accept")
			add(PassAnswer, false, 0, chain, "icmp type echo-reply icmp id %d accept", ProbeID)
			refuse(chain)
		}
		add(Drop, false, 0, chain, "drop")
	}
	// What is published is for everybody; else only those may reach a container that its network lets in.
	add(PassForwarded, false, 0, ChainIsolate, "ct status dnat accept")
	add(PassKnown, false, 0, ChainIsolate, "ct state established,related accept")
	both(func(f family) {
		add(PassPair, f.v6, 0, ChainIsolate, "%[1]s saddr . %[1]s daddr @pairs%[2]s accept", f.ip, f.n)
		add(Isolate, f.v6, 0, ChainIsolate, "%s daddr @overlay%s drop", f.ip, f.n)
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
