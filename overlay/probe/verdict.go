package probe

import (
	"fmt"
	"net/netip"
	"time"
)

// Facts is what one examination of a peer has found.
type Facts struct {
	Peer    string
	Address netip.Addr // on the underlay
	Dev     string     // the underlay's device
	Port    uint16     // UDP port of VXLAN
	// Overhead is what VXLAN adds to a packet, in bytes.
	Overhead int
	// NoRoute is why the kernel sends nothing there; NoNeighbour tells that nobody on the segment answers for the address, or for the gateway's.
	NoRoute     string
	NoNeighbour bool
	Gateway     netip.Addr // the next hop there; invalid: it is on this host's segment
	Near        bool       // on this host's segment
	Used        Path       // by the routes
	Insists     bool       // a network's path is direct, not auto
	Underlay    Echo       // plain ICMP to its address on the underlay
	Ways        [2]Echo
	// UDP tells whether a datagram on the path in use came to the peer whole; NoUDP that it was not tried.
	UDP, NoUDP bool
	Trace      Trace // of packets to the VXLAN port; made when no probe is answered by VXLAN
}

// Echo is what echoes on one path have shown.
type Echo struct {
	Tried       bool
	Small, Full bool // an answer came to one of 64 bytes, and to one of Size
	Size        int
	MTU         int // bytes of the largest that passes; 0: nothing does
	RTT         time.Duration
}

// Trace is what routers have told of packets that they did not let pass.
type Trace struct {
	Last    netip.Addr // the last router that answered; invalid: none
	Refused netip.Addr // who refused them; invalid: nobody
	NoWay   netip.Addr // who said that it has no way to the host or its network; invalid: nobody
	Closed  bool       // the peer itself refused them: nothing listens there
}

// Finding is one thing that is wrong, or, as a Note, worth knowing.
type Finding struct {
	Hop   string `json:"hop"` // where
	Cause string `json:"cause"`
	Cure  string `json:"cure"`
	Note  bool   `json:"note,omitempty"` // packets pass all the same
}

// Verdict says what is wrong. It is empty when all is well.
func Verdict(f Facts) []Finding {
	one := func(hop, cause, cure string, args ...any) []Finding {
		return []Finding{{Hop: hop, Cause: cause, Cure: fmt.Sprintf(cure, args...)}}
	}
	vxlan, direct := f.Ways[VXLAN], f.Ways[Direct]
	switch {
	case f.NoRoute != "":
		return one("this host", "no route: "+f.NoRoute, "give this host a route to %s, or correct the peer's address", f.Address)
	case !vxlan.Small && !direct.Small && !f.Underlay.Small && f.NoNeighbour:
		asked := "ARP"
		if f.Address.Is6() {
			asked = "neighbour discovery"
		}
		if f.Gateway.IsValid() {
			return one(f.Dev, fmt.Sprintf("nobody answers %s for %s, the gateway to %s: it is down, or not on this segment", asked, f.Gateway, f.Address), "see to the gateway %s, or to this host's cable, switch port and VLAN", f.Gateway)
		}
		return one(f.Dev, fmt.Sprintf("nobody answers %s for %s: the host is down, or not on this segment", asked, f.Address), "start %s, or see to its cable, switch port and VLAN", f.Peer)
	case !vxlan.Small && !direct.Small && !f.Underlay.Small && f.Trace.NoWay.IsValid():
		return one(f.Trace.NoWay.String(), fmt.Sprintf("this router says that it has no way to %s", f.Address), "start %s, or see to that router's routes and ports", f.Peer)
	case !vxlan.Small && !direct.Small && !f.Underlay.Small:
		return one(f.behind(), "nothing is answered, not even ICMP on the underlay: the host is down or cannot be reached", "ping %s; traceroute %s", f.Address, f.Address)
	}
	var out []Finding
	switch {
	case !vxlan.Small:
		out = append(out, f.silent())
	case !vxlan.Full:
		out = append(out, f.narrow(vxlan, VXLAN))
	}
	switch {
	case !f.Near || !direct.Tried:
	case !direct.Small:
		out = append(out, Finding{
			Hop: f.Dev, Note: !f.Insists && vxlan.Small,
			Cause: "direct packets are filtered: the host is on this segment, but packets with containers' addresses do not pass",
			Cure:  "turn the source/destination check (port security, MAC and IP spoof guard) of the switch or cloud off, or set path: vxlan",
		})
	case !direct.Full:
		out = append(out, f.narrow(direct, Direct))
	}
	if used := f.Ways[f.Used]; used.Small && !f.UDP && !f.NoUDP {
		out = append(out, f.spoiled())
	}
	return out
}

// silent is about a peer that does not answer by VXLAN, but otherwise.
func (f Facts) silent() Finding {
	out := Finding{Hop: f.behind(), Cause: fmt.Sprintf("UDP port %d is blocked", f.Port)}
	out.Cure = fmt.Sprintf("let UDP port %d pass both ways between %s and this host: firewalls, security groups", f.Port, f.Address)
	switch {
	case f.Trace.Closed:
		out.Hop, out.Cause = f.Peer, fmt.Sprintf("nothing listens on UDP port %d there", f.Port)
		out.Cure = "start the agent there; see that overlay.port is the same on both hosts"
	case f.Trace.Refused == f.Address && f.Trace.Refused.IsValid():
		out.Hop, out.Cause = f.Peer, out.Cause+": its own firewall refuses it"
	case f.Trace.Refused.IsValid():
		out.Hop, out.Cause = f.Trace.Refused.String(), out.Cause+": this hop refuses it"
	}
	return out
}

// narrow is about a path that large packets do not pass.
func (f Facts) narrow(e Echo, p Path) Finding {
	overhead := 0
	if p == VXLAN {
		overhead = f.Overhead
	}
	return Finding{
		Hop:   f.between(),
		Cause: fmt.Sprintf("packets of more than %d bytes vanish on the path %s, and no router says so (black hole)", e.MTU, p),
		Cure: fmt.Sprintf("let links between the hosts carry %d bytes, or set the network's mtu to %d; until then the routes to this peer have mtu %d",
			e.Size+overhead, e.MTU, e.MTU),
	}
}

// spoiled is about a path that passes echoes and no UDP.
func (f Facts) spoiled() Finding {
	out := Finding{Hop: f.Dev, Cause: "echoes pass and UDP does not: checksums are spoiled, by offload to a network card as a rule"}
	out.Cure = fmt.Sprintf("on both hosts: ethtool -K %s tx-udp_tnl-csum-segmentation off tx-udp_tnl-segmentation off; if that does not help: ethtool -K %s tx off", f.Dev, f.Dev)
	if f.Used == Direct {
		out.Cure = fmt.Sprintf("on both hosts: ethtool -K %s tx off", f.Dev)
	}
	return out
}

// behind names the last place that was reached.
func (f Facts) behind() string {
	if f.Trace.Last.IsValid() {
		return "behind " + f.Trace.Last.String()
	}
	return f.between()
}

func (f Facts) between() string { return "between this host and " + f.Peer }
