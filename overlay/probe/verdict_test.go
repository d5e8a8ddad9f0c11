package probe

import (
	"net/netip"
	"strings"
	"testing"
)

func TestVerdictNamesHopCauseAndCure(t *testing.T) {
	t.Parallel()
	well := Echo{Tried: true, Small: true, Full: true, Size: 1450, MTU: 1450}
	lost := Echo{Tried: true, Size: 1450}
	narrow := Echo{Tried: true, Small: true, Size: 1450, MTU: 1350}
	router, address := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("192.0.2.12")
	for _, c := range []struct {
		name  string
		facts func(*Facts)
		want  []string // each finding: parts of "hop | cause | cure"; none: all is well
		note  bool
	}{
		{"all is well", func(*Facts) {}, nil, false},
		{"the underlay's ICMP is filtered, and nothing else", func(f *Facts) { f.Underlay = lost }, nil, false},
		{"no route", func(f *Facts) { f.NoRoute = "network is unreachable" }, []string{"this host | no route: network is unreachable | give this host a route to 192.0.2.12"}, false},
		{"no ARP answer", func(f *Facts) { f.Underlay, f.Ways, f.NoNeighbour, f.Near = lost, [2]Echo{lost, lost}, true, false },
			[]string{"eth0 | nobody answers ARP for 192.0.2.12: the host is down | start web2"}, false},
		{"the gateway is dead", func(f *Facts) {
			f.Underlay, f.Ways, f.NoNeighbour, f.Gateway, f.Near = lost, [2]Echo{lost, lost}, true, router, false
		}, []string{"eth0 | nobody answers ARP for 198.51.100.1, the gateway to 192.0.2.12 | see to the gateway 198.51.100.1"}, false},
		{"nothing at all behind a router", func(f *Facts) { f.Underlay, f.Ways, f.Trace.Last, f.Near = lost, [2]Echo{lost}, router, false },
			[]string{"behind 198.51.100.1 | nothing is answered, not even ICMP on the underlay | ping 192.0.2.12"}, false},
		{"a router has no way", func(f *Facts) { f.Underlay, f.Ways, f.Trace.NoWay, f.Near = lost, [2]Echo{lost}, router, false },
			[]string{"198.51.100.1 | has no way to 192.0.2.12 | start web2"}, false},
		{"the port is blocked behind a router", func(f *Facts) { f.Ways, f.Trace.Last, f.Near, f.UDP = [2]Echo{lost}, router, false, false },
			[]string{"behind 198.51.100.1 | UDP port 4789 is blocked | let UDP port 4789 pass both ways"}, false},
		{"the port is refused by a router", func(f *Facts) { f.Ways, f.Trace.Refused, f.Near = [2]Echo{lost}, router, false },
			[]string{"198.51.100.1 | UDP port 4789 is blocked: this hop refuses it | let"}, false},
		{"the port is refused by the peer", func(f *Facts) { f.Ways, f.Trace.Refused, f.Near = [2]Echo{lost}, address, false },
			[]string{"web2 | UDP port 4789 is blocked: its own firewall refuses it | let"}, false},
		{"nothing listens", func(f *Facts) { f.Ways, f.Trace.Closed, f.Near = [2]Echo{lost}, true, false },
			[]string{"web2 | nothing listens on UDP port 4789 there | start the agent there"}, false},
		{"the port is blocked on the segment, and direct works", func(f *Facts) { f.Ways[VXLAN] = lost },
			[]string{"between this host and web2 | UDP port 4789 is blocked | let"}, false},
		{"a black hole", func(f *Facts) { f.Ways[VXLAN] = narrow },
			[]string{"between this host and web2 | packets of more than 1350 bytes vanish on the path vxlan | carry 1500 bytes, or set the network's mtu to 1350"}, false},
		{"a black hole on the direct path", func(f *Facts) { f.Ways[Direct] = narrow },
			[]string{"between this host and web2 | packets of more than 1350 bytes vanish on the path direct | carry 1450 bytes"}, false},
		{"direct packets are filtered", func(f *Facts) { f.Ways[Direct], f.Used = lost, VXLAN },
			[]string{"eth0 | direct packets are filtered | path: vxlan"}, true},
		{"direct packets are filtered where direct is asked for", func(f *Facts) { f.Ways[Direct], f.Insists, f.Used = lost, true, VXLAN },
			[]string{"eth0 | direct packets are filtered | path: vxlan"}, false},
		{"checksums are spoiled by VXLAN", func(f *Facts) { f.Used, f.UDP = VXLAN, false },
			[]string{"eth0 | checksums are spoiled | ethtool -K eth0 tx-udp_tnl-csum-segmentation off"}, false},
		{"checksums are spoiled on the direct path", func(f *Facts) { f.UDP = false }, []string{"eth0 | checksums are spoiled | ethtool -K eth0 tx off"}, false},
		{"the port is blocked and large packets vanish", func(f *Facts) { f.Ways = [2]Echo{lost, narrow} },
			[]string{"between | UDP port 4789 is blocked | let", "between | 1350 bytes vanish on the path direct | carry"}, false},
	} {
		f := Facts{
			Peer: "web2", Address: address, Dev: "eth0", Port: 4789, Overhead: 50, Near: true, Used: Direct,
			Underlay: well, Ways: [2]Echo{well, well}, UDP: true,
		}
		c.facts(&f)
		got := Verdict(f)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		for i, w := range c.want {
			parts := strings.Split(w, " | ")
			g := got[i]
			if !strings.HasPrefix(g.Hop, parts[0]) || !strings.Contains(g.Cause, parts[1]) || !strings.Contains(g.Cure, parts[2]) || g.Note != c.note {
				t.Errorf("%s: got %+v, want %s", c.name, g, w)
			}
		}
	}
}
