package plan

import (
	"fmt"
	"net/netip"
	"strings"
)

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
	// Disowned says which VTEP may no longer send for which addresses: others have them.
	Disowned []MACBlock
}

// missingFrom gives what e has and have has not; reversed, the other way round.
func (e Elements) missingFrom(have Elements, reversed bool) Elements {
	if reversed {
		e, have = have, e
	}
	return Elements{
		without(e.Links, have.Links), without(e.Forwards, have.Forwards), without(e.Hairpins, have.Hairpins),
		without(e.VTEPs, have.VTEPs), without(e.Direct, have.Direct), without(e.Disowned, have.Disowned),
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
	return len(e.Links)+len(e.Forwards)+len(e.Hairpins)+len(e.VTEPs)+len(e.Direct)+len(e.Disowned) == 0
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
		n := suffix(f.Host.Addr())
		if f.Host.Addr().IsUnspecified() {
			line("any"+n, "%s . %d : %s . %d", f.Protocol, f.Host.Port(), f.To.Addr(), f.To.Port())
		} else {
			line("on"+n, "%s . %s . %d : %s . %d", f.Host.Addr(), f.Protocol, f.Host.Port(), f.To.Addr(), f.To.Port())
		}
	}
	for _, a := range e.Hairpins {
		line("hairpin"+suffix(a), "%s . %s", a, a)
	}
	for _, a := range e.VTEPs {
		line("vteps"+suffix(a), "%s", a)
	}
	for _, d := range e.Direct {
		line("direct", "%s . %s", d.MAC, d.Block)
	}
	for _, d := range e.Disowned {
		line("disowned"+suffix(d.Block.Addr()), "%s . %s", d.MAC, d.Block)
	}
	return strings.Join(out, "\n")
}

// suffix ends the names of those sets that are there for each family.
func suffix(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}
