//go:build kernel

package overlay_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// onSegment makes a host on a switch, and gives a way to put others there.
func onSegment(t *testing.T) (s *site, host func(address string) *hosttest.NetNamespace) {
	t.Helper()
	s, _, host = onSwitch(t)
	return s, host
}

// onSwitch gives the switch as well; this host has its port p0.
func onSwitch(t *testing.T) (s *site, sw *hosttest.NetNamespace, host func(address string) *hosttest.NetNamespace) {
	t.Helper()
	s = &site{t: t}
	sw = hosttest.NetNS(t)
	s.sh(`nsenter --net=` + sw.Path + ` sh -ec 'ip link add sw type bridge; ip link set sw up'
		ip link add under type veth peer name p0 netns ` + sw.Path + `; ip addr add 192.0.2.11/24 dev under; ip link set under up
		nsenter --net=` + sw.Path + ` ip link set p0 master sw up`)
	n := 0
	return s, sw, func(address string) *hosttest.NetNamespace {
		n++
		h, port := hosttest.NetNS(t), "p"+string(rune('0'+n))
		s.sh(`nsenter --net=` + sw.Path + ` ip link add ` + port + ` master sw type veth peer name eth0 netns ` + h.Path + `
			nsenter --net=` + sw.Path + ` ip link set ` + port + ` up
			nsenter --net=` + h.Path + ` sh -ec 'ip addr add ` + address + `/24 dev eth0; ip link set eth0 up'`)
		return h
	}
}

func TestNewsOfTheStoreAreNotUndoneByALookAtTheSegment(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s, _ := onSegment(t)
	c := hosts(3, "")
	all := c.Peers
	c.Peers = all[:2]
	s.start(c)
	for i := range 80 {
		found := make(chan struct{})
		go func() {
			defer close(found)
			s.sh(fmt.Sprintf("ip neigh replace 192.0.2.12 lladdr 02:00:00:00:01:%02x dev under nud stale", i%2))
		}()
		time.Sleep(time.Duration(i%12) * 500 * time.Microsecond) // so that the two meet at different moments
		want := 2 - i%2
		if err := s.o.SetPeers(all[:want+1]); err != nil {
			t.Fatal(err)
		}
		<-found
		for began := time.Now(); len(s.o.Networks()[0].Peers) != want; time.Sleep(5 * time.Millisecond) {
			if time.Since(began) > hosttest.Bound(3*time.Second) {
				t.Fatalf("round %d: %d peers, want %d", i, len(s.o.Networks()[0].Peers), want)
			}
		}
	}
}

func TestWhileTheUnderlaysDeviceIsGoneContainersAreAttached(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s, host := onSegment(t)
	host("192.0.2.12")
	c := hosts(2, "")
	s.start(c)
	s.sh("ping -c1 -W2 192.0.2.12; ip link del under; ip link add marker type veth; ip link del marker")
	for i := range 20 {
		b := s.box(fmt.Sprint("meanwhile", i), "blue")
		s.sh("ping -c1 -W2 " + b.Addr.String())
	}
}

func TestAPeerOnTheSegmentIsReachedPlainlyAndNobodyElsePassesForIt(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s, host := onSegment(t)
	c := overlay.DefaultConfig()
	c.Store = "static"
	c.Networks = []overlay.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/48"), VNI: 42, Path: "direct"}}
	c.Peers = []overlay.Peer{
		{Name: "web1", Address: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("fd42:0:0:1::/64")}},
		{Name: "web2", Address: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("fd42:0:0:2::/64")}},
	}
	peer, outsider := host("192.0.2.12"), host("192.0.2.13")
	// Both bear an address of the peer's block, and the peer's own, and know the way; each has a VXLAN device, too.
	ours, hop := plan.VTEPMAC("web1", 42).String(), plan.VTEPMAC("web1", 42).LinkLocal().String()
	for _, h := range []*hosttest.NetNamespace{peer, outsider} {
		s.sh("nsenter --net=" + h.Path + ` sh -ec '
			ip addr add 10.42.2.1/32 dev lo; ip addr add 10.42.2.5/32 dev lo; ip link add vx address ` + plan.VTEPMAC("web2", 42).String() + ` type vxlan id 42 dstport 4789 nolearning
			bridge fdb add ` + ours + ` dev vx dst 192.0.2.11 self; ip link set vx up; ip neigh add 10.42.1.1 lladdr ` + ours + ` dev vx
			ip -6 addr add fd42:0:0:2::5/128 dev lo nodad; ip -6 neigh add ` + hop + ` lladdr ` + ours + ` dev vx
			ip -6 route add fd42:0:0:1::/64 via ` + hop + ` dev vx onlink src fd42:0:0:2::5
			ip route add 10.42.1.0/24 via 192.0.2.11 src 10.42.2.5; sysctl -qw net.ipv4.conf.all.rp_filter=0'`)
	}
	s.start(c)
	b := s.box("b", "blue")
	path := func() string { return s.sh("ip route show 10.42.2.0/24") }
	until := func(what, want string) {
		t.Helper()
		for began := time.Now(); !strings.Contains(path(), want); time.Sleep(20 * time.Millisecond) { // the kernel finds the peer, not we
			if time.Since(began) > 15*time.Second {
				t.Fatalf("%s: the route is %s", what, path())
			}
		}
	}
	until("found", "via 192.0.2.12 dev under")
	if seen := s.ask(peer, at(b.Addr, 80)); seen != "10.42.2.5" {
		t.Errorf("the peer, plainly: seen as %q\n%s", seen, s.sh("nft list table inet fairlead"))
	}
	s.serve(peer, "10.42.2.5:80")
	if seen := s.ask(b.NetNamespace, "10.42.2.5:80"); seen != b.Addr.String() {
		t.Errorf("to the peer, plainly: seen as %q", seen)
	}
	var heard *net.UDPConn
	inside(t, b.NetNamespace, func() (err error) {
		heard, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7777})
		return err
	})
	defer heard.Close()
	says := func(ns *hosttest.NetNamespace, patience time.Duration) bool {
		inside(t, ns, func() error {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.Addr, 7777)))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			return err
		})
		_ = heard.SetReadDeadline(time.Now().Add(patience))
		_, err := heard.Read(make([]byte, 10))
		return err == nil
	}
	if !says(peer, 5*time.Second) {
		t.Error("the peer's datagram did not arrive")
	}
	impostor := func(how string) {
		t.Helper()
		if says(outsider, 300*time.Millisecond) {
			t.Errorf("%s: an impostor's datagram arrived\n%s", how, s.sh("nft list chain inet fairlead antispoof"))
		}
	}
	if seen := s.ask(peer, at(b.Addr6, 80)); seen != "fd42:0:0:2::5" {
		t.Errorf("the peer, by IPv6 and VXLAN: seen as %q\n%s", seen, s.sh("nft list table inet fairlead; ip -6 route"))
	}
	if seen := s.askFor(300*time.Millisecond, outsider, at(b.Addr6, 80)); seen != "" {
		t.Errorf("an impostor, by IPv6 and VXLAN: seen as %q", seen)
	}
	impostor("plainly")
	viaVXLAN := "ip route replace 10.42.1.0/24 via 10.42.1.1 dev vx onlink src 10.42.2.5"
	s.sh("nsenter --net=" + outsider.Path + " " + viaVXLAN)
	impostor("by VXLAN")
	// The peer may still send by VXLAN when it has not found us on the segment.
	s.sh("nsenter --net=" + peer.Path + " " + viaVXLAN)
	if seen := s.ask(peer, at(b.Addr, 80)); seen != "10.42.2.5" {
		t.Errorf("the peer, by VXLAN: seen as %q\n%s", seen, s.sh("nft list table inet fairlead"))
	}
	// Its switch port goes: what is sent to it fails, and after a while the way is by VXLAN.
	s.sh("nsenter --net=" + peer.Path + " ip link set eth0 down; ip neigh change 192.0.2.12 dev under nud failed 2>/dev/null || ip neigh flush dev under")
	until("lost", "dev fl-vx42")
}
