package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// The 32-bit registers that a concatenation is laid out in (nf_tables.h); register 1 is the first four of them.
const (
	reg1 = 1
	r0   = unix.NFT_REG32_00
)

// expressions gives what nft(8) compiles a rule's text to.
func expressions(r plan.Rule) []expr.Any {
	f := families4
	if r.V6 {
		f = families6
	}
	switch r.Kind {
	case plan.AntispoofMAC:
		return rule(iifGroup(r.Group),
			ether(), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
			&expr.Payload{DestRegister: r0 + 4, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
			lookup("links", true), drop())
	case plan.AntispoofAddr:
		return rule(iifGroup(r.Group), f.only(),
			&expr.Fib{Register: reg1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
			equal([]byte{0}), drop())
	case plan.AntispoofPeer:
		return rule(iifGroup(r.Group), f.only(),
			&expr.Fib{Register: reg1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
			equal([]byte{0}), etherAndSource(f), lookup("direct", true), drop())
	case plan.NoDisowned:
		return rule(iifGroup(r.Group), f.only(), etherAndSource(f), lookup("disowned"+f.suffix, false), drop())
	case plan.NoOutsiders:
		parts := rule(notLoopback(), f.only(), f.source(reg1), lookup("overlay"+f.suffix, false))
		if !r.V6 {
			parts = rule(parts, ether(), etherAndSource(f), lookup("direct", true))
		}
		return rule(parts, drop())
	case plan.NoPlainOutsiders:
		return rule(notLoopback(), notEther(), f.only(), f.source(reg1), lookup("overlay"+f.suffix, false), drop())
	case plan.NoForeignVXLAN:
		return rule(ourVXLAN(), drop())
	case plan.TakePeersVXLAN:
		return rule(f.only(), f.source(reg1), lookup("vteps"+f.suffix, false), &expr.Notrack{}, verdict(expr.VerdictAccept))
	case plan.UntrackVXLAN:
		return rule(ourVXLAN(), &expr.Notrack{})
	case plan.Turn:
		when := iifGroup(r.Group)
		if r.Group == 0 {
			when = ourVXLAN()
		}
		return rule(when, &expr.Verdict{Kind: expr.VerdictGoto, Chain: r.To})
	case plan.NoLoopback:
		return rule(iifGroup(r.Group), f.only(), f.destination(reg1), loopbackNet(), equal([]byte{127, 0, 0, 0}), drop())
	case plan.PassKnown:
		return rule(conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
	case plan.PassForwarded:
		return rule(conntrack(expr.CtKeySTATUS, statusDNAT), verdict(expr.VerdictAccept))
	case plan.Isolate:
		return rule(f.only(), f.destination(reg1), lookup("overlay"+f.suffix, false), drop())
	case plan.PassPair:
		return rule(f.only(), f.source(reg1), f.destination(r0+f.words()), lookup("pairs"+f.suffix, false), verdict(expr.VerdictAccept))
	case plan.PassToDoor:
		return rule(iifGroup(r.Group), f.only(), f.destination(reg1), equal(f.gateway.AsSlice()), verdict(expr.VerdictAccept))
	case plan.PassOpen:
		return rule(iifGroup(r.Group), f.only(), f.source(reg1), lookup("open"+f.suffix, false), verdict(expr.VerdictAccept))
	case plan.PassProbe:
		return rule(iifGroup(r.Group), f.only(), ttl(255), icmpType(8), verdict(expr.VerdictAccept))
	case plan.PassAnswer:
		return rule(iifGroup(r.Group), f.only(), icmpType(0), probeID(), verdict(expr.VerdictAccept))
	case plan.RefuseProbe:
		return rule(f.only(), ttl(255), f.source(reg1), lookup("overlay"+f.suffix, false), l4proto(reg1), equal([]byte{unix.IPPROTO_UDP}),
			port(reg1), equal(binary.BigEndian.AppendUint16(nil, plan.ProbePort)), &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable})
	case plan.UntrackAnswer:
		return rule(f.only(), icmpType(0), probeID(), f.source(reg1), lookup("overlay"+f.suffix, false), &expr.Notrack{})
	case plan.Drop:
		return rule(iifGroup(r.Group), drop())
	case plan.ForwardOn:
		return rule(f.only(), local(), f.destination(reg1), l4proto(r0+f.words()), port(r0+f.words()+1), f.forward("on"))
	case plan.ForwardAny:
		return rule(f.only(), local(), l4proto(reg1), port(r0+1), f.forward("any"))
	case plan.Masquerade:
		return rule(f.only(), f.source(reg1), lookup("overlay"+f.suffix, false),
			f.destination(reg1), lookup("overlay"+f.suffix, true), &expr.Masq{})
	case plan.MasqueradeHairpin:
		return rule(f.only(), f.source(reg1), f.destination(r0+f.words()), lookup("hairpin"+f.suffix, false), &expr.Masq{})
	case plan.MasqueradeLoopback:
		return rule(group(expr.MetaKeyOIFGROUP, r.Group), f.only(), f.source(reg1), loopbackNet(), equal([]byte{127, 0, 0, 0}), &expr.Masq{})
	}
	panic(fmt.Sprintf("no expressions for rule kind %d", r.Kind))
}

// rule joins single expressions and lists of them.
func rule(parts ...any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		switch p := p.(type) {
		case expr.Any:
			out = append(out, p)
		case []expr.Any:
			out = append(out, p...)
		}
	}
	return out
}

// statusSNAT and statusDNAT are IPS_SRC_NAT and IPS_DST_NAT of nf_conntrack_common.h.
const statusSNAT, statusDNAT = 1 << 4, 1 << 5

func group(key expr.MetaKey, g uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, equal(binaryutil.NativeEndian.PutUint32(g))}
}

// iifGroup matches packets from links of a group; 0: from any.
func iifGroup(g uint32) []expr.Any {
	if g == 0 {
		return nil
	}
	return group(expr.MetaKeyIIFGROUP, g)
}

// ourVXLAN matches packets to the port and with the identifier (RFC 7348) of one of our networks.
func ourVXLAN() []expr.Any {
	return []expr.Any{
		l4proto(reg1), equal([]byte{unix.IPPROTO_UDP}),
		port(reg1), &expr.Payload{DestRegister: r0 + 1, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 4},
		lookup("tunnels", false),
	}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data} }

func lookup(set string, not bool) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: set, Invert: not}
}

func verdict(k expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: k} }

// ether matches devices whose packets have Ethernet headers.
func ether() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: reg1}, equal(binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER))}
}

func notEther() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER)},
	}
}

// notLoopback: lo is the first device of every network namespace.
func notLoopback() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(1)},
	}
}

// etherAndSource loads the MAC and the address that a packet comes from.
func etherAndSource(f ipFamily) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}, f.source(r0 + 2)}
}

func drop() []expr.Any { return []expr.Any{&expr.Counter{}, verdict(expr.VerdictDrop)} }

// conntrack matches when any of bits is set.
func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: reg1, Key: key},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

func loopbackNet() expr.Any {
	return &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)}
}

// local matches packets for an address of the host.
func local() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

func l4proto(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }

// port loads the destination port, which TCP, UDP and SCTP have at the same place.
func port(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// portUnreachable is a code of ICMP's "destination unreachable" (RFC 792).
const portUnreachable = 3

func ttl(n byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 1}, equal([]byte{n})}
}

// icmpType matches ICMP messages of a type (RFC 792).
func icmpType(n byte) []expr.Any {
	return []expr.Any{
		l4proto(reg1), equal([]byte{unix.IPPROTO_ICMP}),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Len: 1}, equal([]byte{n}),
	}
}

// probeID matches echoes of probes; the identifier is behind type, code and checksum.
func probeID() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 2}, equal(binary.BigEndian.AppendUint16(nil, plan.ProbeID)),
	}
}

// only matches packets of the family.
func (f ipFamily) only() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1}, equal([]byte{f.proto})}
}

func (f ipFamily) source(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: f.srcAt, Len: f.len}
}

func (f ipFamily) destination(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: f.srcAt + f.len, Len: f.len}
}

// words is the number of 32-bit registers that an address takes.
func (f ipFamily) words() uint32 { return f.len / 4 }

// forward changes the destination to what the map has for the key in register 1: an address, and a port behind it.
func (f ipFamily) forward(set string) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set + f.suffix},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg1, RegProtoMin: r0 + f.words()},
	}
}
