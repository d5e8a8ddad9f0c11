//go:build kernel

package etcd

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// A third host on the segment writes frames by hand. What is stopped: whoever has no peer's MAC (plainly) or no peer's
// underlay address (by VXLAN), and a peer that speaks for addresses that are not its own. What is not: VXLAN has no
// authentication, so who forges a peer's underlay address may speak for that peer's blocks, and so may who forges its
// MAC where packets go plainly. Forged ARP and neighbour discovery are the segment's own matter. Both are for a switch
// that knows its ports, or for encryption below.
func TestWhoIsNoPeerReachesNothingByFramesOfHisOwn(t *testing.T) {
	t.Parallel()
	s := begin(t, networks, "web1", "web2", "outsider")
	g := &segment{story: s, web1: s.Node("web1"), web2: s.Node("web2"), outsider: s.Node("outsider")}
	s.join("green", g.web1, g.web2)
	s.must(g.web1.Add(t.Context(), "b-web1", "blue"))
	s.must(g.web2.Add(t.Context(), "b-web2", "blue"))
	s.until(g.web1, "blue", "web2 is found on the segment", func(n Network) bool { return n.direct("web2") })
	s.settled("two hosts joined")
	g.mac = map[*Node]plan.MAC{g.web1: s.mac(g.web1), g.web2: s.mac(g.web2), g.outsider: s.mac(g.outsider)}
	g.wire = map[*Node]int{g.web2: s.raw(g.web2, ""), g.outsider: s.raw(g.outsider, "")}

	blue, green := overlaid{"blue", 42, 43, "b-web1", "b-web2", true}, overlaid{"green", 43, 42, "c-web1", "c-web2", false}
	// A container hears by its link, the host by a socket, behind its firewall.
	g.attack(blue, "a container", s.raw(g.web1, blue.one), g.web1.Boxes[blue.one].Addr)
	g.attack(green, "a container", s.raw(g.web1, green.one), g.web1.Boxes[green.one].Addr)
	g.attack(blue, "the host", s.listen(g.web1, 7778), g.web1.Addr)
	g.forge(blue, s.raw(g.web1, blue.one))
	g.forge(green, s.raw(g.web1, green.one))
}

// segment is two peers and somebody else.
type segment struct {
	*story
	web1, web2, outsider *Node
	mac                  map[*Node]plan.MAC
	wire                 map[*Node]int // packet sockets
}

// overlaid is a network.
type overlaid struct {
	name       string
	vni, other uint32
	one, two   string // containers on web1 and web2
	plain      bool   // packets between the hosts go plainly
}

// inner is what a container would send.
func inner(from, to netip.Addr, word string) []byte {
	return udp(netip.AddrPortFrom(from, 7777), netip.AddrPortFrom(to, 7778), []byte(word))
}

func (g *segment) plainly(by *Node, packet []byte) []byte {
	return ether(g.mac[g.web1], g.mac[by], packet)
}

// tunnelled is a packet as web2 would send it by VXLAN, from an underlay address.
func (g *segment) tunnelled(by *Node, from netip.Addr, n overlaid, vni uint32, packet []byte) []byte {
	frame := ether(plan.VTEPMAC("web1", n.vni), plan.VTEPMAC("web2", n.vni), packet)
	return g.plainly(by, udp(netip.AddrPortFrom(from, 50000), netip.AddrPortFrom(g.web1.Addr, 4789), vxlan(vni, frame)))
}

// attacks are what must not arrive, by what they are.
func (g *segment) attacks(n overlaid) map[string]func(to netip.Addr, word string) []byte {
	two := g.web2.Boxes[n.two].Addr
	plainly := func(from netip.Addr) func(netip.Addr, string) []byte {
		return func(to netip.Addr, word string) []byte { return g.plainly(g.outsider, inner(from, to, word)) }
	}
	tunnelled := func(outer netip.Addr, vni uint32, from netip.Addr) func(netip.Addr, string) []byte {
		return func(to netip.Addr, word string) []byte {
			return g.tunnelled(g.outsider, outer, n, vni, inner(from, to, word))
		}
	}
	own := g.web1.Blocks(n.name)[0].Addr().Next()
	out := map[string]func(netip.Addr, string) []byte{
		"plainly": plainly(two), "plainly, for nobody of the peer's block": plainly(two.Next().Next()), "plainly, for the host itself": plainly(own),
		"by VXLAN": tunnelled(g.outsider.Addr, n.vni, two),
		"by VXLAN, with the peer's underlay address, for the host itself": tunnelled(g.web2.Addr, n.vni, own),
		"by VXLAN, with the peer's underlay address, for the world":       tunnelled(g.web2.Addr, n.vni, netip.MustParseAddr("198.51.100.9")),
		"by VXLAN, with the peer's underlay address, in another network":  tunnelled(g.web2.Addr, n.other, two),
	}
	if !n.plain {
		out["plainly, with the peer's MAC, where all goes by VXLAN"] = func(to netip.Addr, word string) []byte { return g.plainly(g.web2, inner(two, to, word)) }
	}
	return out
}

// legit is what the peer itself sends.
func (g *segment) legit(n overlaid, to netip.Addr, word string) []byte {
	packet := inner(g.web2.Boxes[n.two].Addr, to, word)
	if n.plain {
		return g.plainly(g.web2, packet)
	}
	return g.tunnelled(g.web2, g.web2.Addr, n, n.vni, packet)
}

func (g *segment) send(by *Node, frame []byte) {
	g.t.Helper()
	if _, err := unix.Write(g.wire[by], frame); err != nil {
		g.t.Fatal(err)
	}
}

// attack sends each attack three times, and then the same packet of the peer: it arrives, and so would have what was
// sent before it. It is sent twice, for each processor has a queue of its own.
func (g *segment) attack(n overlaid, victim string, hears int, to netip.Addr) {
	g.t.Helper()
	var words []string
	for what, frame := range g.attacks(n) {
		word := fmt.Sprintf("[%s, to %s of %s]", what, victim, n.name)
		words = append(words, word)
		for range 3 {
			g.send(g.outsider, frame(to, word))
		}
	}
	for _, last := range []string{"[peer]", "[peer again]"} {
		g.send(g.web2, g.legit(n, to, last))
		seen := counts(hears, last, append(words, last), bound())
		if seen[last] == 0 {
			g.t.Fatalf("the peer's own packet does not arrive at %s of %s", victim, n.name)
		}
		for _, w := range words {
			if seen[w] > 0 {
				g.t.Errorf("%d of 3 packets arrived: %s", seen[w], w)
			}
		}
	}
}

// forge tells what nobody stops.
func (g *segment) forge(n overlaid, hears int) {
	g.t.Helper()
	to, from := g.web1.Boxes[n.one].Addr, g.web2.Boxes[n.two].Addr
	g.send(g.outsider, g.tunnelled(g.outsider, g.web2.Addr, n, n.vni, inner(from, to, "[forged]")))
	g.send(g.web2, g.legit(n, to, "[last]"))
	seen := counts(hears, "[last]", []string{"[forged]", "[last]"}, bound())
	g.t.Logf("%s: VXLAN with the peer's underlay address, forged, for the peer's block: %d of 1 arrived", n.name, seen["[forged]"])
}
