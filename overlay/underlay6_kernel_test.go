//go:build kernel

package overlay_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestOverAnUnderlayOfIPv6PeersAreReachedAndNobodyElsePassesForThem(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := &site{t: t}
	peer := hosttest.NetNS(t)
	s.sh(`ip link add under type veth peer name eth0 netns ` + peer.Path + `; ip -6 addr add 2001:db8::11/64 dev under nodad; ip link set under up
		nsenter --net=` + peer.Path + ` sh -ec 'ip -6 addr add 2001:db8::12/64 dev eth0 nodad; ip -6 addr add 2001:db8::13/64 dev eth0 nodad; ip link set eth0 up'
		ip -6 route add default via 2001:db8::12`)
	c := overlay.DefaultConfig()
	c.Store = "static"
	c.Networks = []overlay.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/48"), VNI: 42}}
	c.Peers = []overlay.Peer{
		{Name: "web1", Address: netip.MustParseAddr("2001:db8::11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("fd42:0:0:1::/64")}},
		{Name: "web2", Address: netip.MustParseAddr("2001:db8::12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("fd42:0:0:2::/64")}},
	}
	ours := plan.VTEPMAC("web1", 42)
	// As an agent there would have it, for one address of ours each; local is where it sends from.
	become := func(local string) {
		s.sh("nsenter --net=" + peer.Path + ` sh -ec '
			ip link del vx 2>/dev/null || true
			ip link add vx address ` + plan.VTEPMAC("web2", 42).String() + ` type vxlan id 42 dstport 4789 nolearning local ` + local + `
			bridge fdb add ` + ours.String() + ` dev vx dst 2001:db8::11 self; ip link set vx up
			ip addr add 10.42.2.1/32 dev vx; ip neigh add 10.42.1.1 lladdr ` + ours.String() + ` dev vx
			ip route add 10.42.1.0/24 via 10.42.1.1 dev vx onlink src 10.42.2.1
			ip -6 addr add fd42:0:0:2::1/128 dev vx nodad; ip -6 neigh add ` + ours.LinkLocal().String() + ` lladdr ` + ours.String() + ` dev vx
			ip -6 route add fd42:0:0:1::/64 via ` + ours.LinkLocal().String() + ` dev vx onlink src fd42:0:0:2::1'`)
	}
	become("2001:db8::12")
	s.start(c)
	b := s.box("b", "blue")
	if seen := s.ask(peer, at(b.Addr, 80)); seen != "10.42.2.1" {
		t.Errorf("the peer, by IPv4: seen as %q\n%s", seen, s.sh("ip route; ip neigh; bridge fdb; nft list chain inet fairlead antispoof"))
	}
	if seen := s.ask(peer, at(b.Addr6, 80)); seen != "fd42:0:0:2::1" {
		t.Errorf("the peer, by IPv6: seen as %q\n%s", seen, s.sh("ip -6 route; ip -6 neigh; bridge fdb"))
	}
	s.serve(peer, "10.42.2.1:80")
	if seen := s.ask(b.NetNamespace, "10.42.2.1:80"); seen != b.Addr.String() {
		t.Errorf("to the peer: seen as %q", seen)
	}
	if mtu := s.o.Networks()[0].MTU; mtu != 1430 {
		t.Errorf("MTU %d, of 1500 bytes that the underlay carries", mtu)
	}
	become("2001:db8::13")
	if out := s.sh("nsenter --net=" + peer.Path + " ping -c1 -W1 " + b.Addr.String() + " || true"); !strings.Contains(out, " 0 received") {
		t.Errorf("VXLAN from an address that is no peer's came through:\n%s", out)
	}
	if seen := s.askFor(300e6, peer, at(b.Addr, 80)); seen != "" {
		t.Errorf("who sends from an address that is no peer's is seen as %q", seen)
	}
}
