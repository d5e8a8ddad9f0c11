package plan

import (
	"fmt"
	"net/netip"
	"strings"
)

// Flow says which entries of connection tracking are meant. What is zero does not matter; V6 does where no address is
// given.
type Flow struct {
	V6       bool
	Src, Dst netip.Addr // of the first packet
	From     netip.Addr // who answers: the source of the replies, behind a host port
	Protocol Transport
	DstPort  uint16
}

func (f Flow) String() string {
	line := "conntrack -D"
	if f.V6 {
		line += " -f ipv6"
	}
	option := func(flag string, set bool, value any) {
		if set {
			line += fmt.Sprintf(" %s %v", flag, value)
		}
	}
	option("-s", f.Src.IsValid(), f.Src)
	option("-d", f.Dst.IsValid(), f.Dst)
	option("-r", f.From.IsValid(), f.From)
	option("-p", f.Protocol != 0, f.Protocol)
	option("--dport", f.DstPort != 0, f.DstPort)
	return line
}

// ForgetFlows makes connection tracking forget what any of Flows says.
type ForgetFlows struct{ Flows []Flow }

func (s ForgetFlows) String() string {
	var out []string
	for _, f := range s.Flows {
		out = append(out, f.String())
	}
	return strings.Join(out, "\n")
}

// FlowsOf gives every flow of a's addresses: a later holder of one must not get packets of those.
func FlowsOf(a Attachment) []Flow {
	var out []Flow
	for _, addr := range a.Addrs() {
		out = append(out, Flow{V6: addr.Is6(), Src: addr}, Flow{V6: addr.Is6(), From: addr})
	}
	return out
}

// strayFlows gives the flows that went past a's ports before it had them. A steady UDP or SCTP sender keeps such an
// entry alive, and an entry decides where the packet goes before any port map is asked; TCP begins anew by itself.
func strayFlows(a Attachment) []Flow {
	var out []Flow
	for _, f := range Forwards(a) {
		if f.Protocol == TCP {
			continue
		}
		flow := Flow{V6: f.Host.Addr().Is6(), Protocol: f.Protocol, DstPort: f.Host.Port()}
		if !f.Host.Addr().IsUnspecified() {
			flow.Dst = f.Host.Addr()
		}
		out = append(out, flow)
	}
	return out
}
