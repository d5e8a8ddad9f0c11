//go:build kernel

package overlay_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestConnectionTrackingSeesWhatIsInVXLANPacketsAndNotThem(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	hosttest.Require(t, "conntrack")
	s, host := onSegment(t)
	c := hosts(2, "vxlan")
	peer, ours := host("192.0.2.12"), plan.VTEPMAC("web1", 42).String()
	s.sh("nsenter --net=" + peer.Path + ` sh -ec '
		ip addr add 10.42.2.5/32 dev lo; ip link add vx address ` + plan.VTEPMAC("web2", 42).String() + ` type vxlan id 42 dstport 4789 nolearning
		bridge fdb add ` + ours + ` dev vx dst 192.0.2.11 self; ip link set vx up; ip neigh add 10.42.1.1 lladdr ` + ours + ` dev vx
		ip route add 10.42.1.0/24 via 10.42.1.1 dev vx onlink src 10.42.2.5'`)
	s.start(c)
	b := s.box("b", "blue")
	if seen := s.ask(peer, at(b.Addr, 80)); seen != "10.42.2.5" {
		t.Fatalf("the peer was seen as %q", seen)
	}
	flows := s.sh("conntrack -L 2>/dev/null")
	if !strings.Contains(flows, "src=10.42.2.5") || strings.Contains(flows, "dport=4789") {
		t.Errorf("tracked:\n%s", flows)
	}
}

func TestWhoIsNotLetInIsNotLetInByTryingAgain(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue(), green())
	b, near, far := s.box("b", "blue"), s.box("near", "blue"), s.box("far", "green")
	var heard *net.UDPConn
	inside(t, b.NetNamespace, func() (err error) {
		heard, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7777})
		return err
	})
	defer heard.Close()
	say := func(from box, text string) {
		inside(t, from.NetNamespace, func() error {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.Addr, 7777)))
			if err != nil {
				return err
			}
			defer c.Close()
			for range 10 { // one flow that nobody answers
				if _, err := c.Write([]byte(text)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	say(far, "far")
	say(near, "near") // what was sent before would have arrived before
	for range 10 {
		_ = heard.SetReadDeadline(time.Now().Add(10 * time.Second))
		text := make([]byte, 10)
		n, err := heard.Read(text)
		if err != nil || string(text[:n]) != "near" {
			t.Fatalf("heard %q: %v", text[:n], err)
		}
	}
}
