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

func TestASingleAddressOfAListedHostIsItsContainers(t *testing.T) {
	for name, blocks := range map[string]string{"beside a block": "10.42.1.0/24 10.42.0.9/32", "alone": "10.42.0.9/32"} {
		t.Run(name, func(t *testing.T) {
			if !hosttest.InOwnNetNS(t) {
				return
			}
			s, _ := onSegment(t)
			c := overlay.DefaultConfig()
			c.Store = "static"
			c.Networks = []overlay.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}}
			c.Peers = []overlay.Peer{
				{Name: "web1", Address: netip.MustParseAddr("192.0.2.11")},
				{Name: "web2", Address: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("10.42.0.10/32")}},
			}
			for _, b := range strings.Fields(blocks) {
				c.Peers[0].Blocks = append(c.Peers[0].Blocks, netip.MustParsePrefix(b))
			}
			s.start(c)
			ask := func(name, addr string) (box, error) {
				b := box{NetNamespace: hosttest.NetNS(t)}
				var err error
				b.Attachment, err = s.o.Attach(t.Context(), overlay.Request{
					Key: plan.Key{Owner: name, IfName: "eth0"}, Network: "blue", NS: plan.Namespace{FD: int(b.File.Fd()), Path: b.Path}, Addr: netip.MustParseAddr(addr),
				})
				return b, err
			}
			b, err := ask("db", "10.42.0.9")
			if err != nil {
				t.Fatal(err)
			}
			s.serve(b.NetNamespace, ":80")
			if seen := s.ask(nil, "10.42.0.9:80"); seen == "" {
				t.Errorf("the host does not reach it\n%s", s.sh("ip route; ip addr"))
			}
			if strings.Contains(s.sh("ip addr show dev fl-vx42"), "10.42.0.9") {
				t.Error("the host has it as its own")
			}
			if _, err := ask("thief", "10.42.0.10"); err == nil || !strings.Contains(err.Error(), "of the block 10.42.0.10/32, which host web2 holds") {
				t.Errorf("who asked for another host's was told: %v", err)
			}
			if _, err := ask("second", "10.42.0.9"); err == nil || !strings.Contains(err.Error(), "10.42.0.9 is held by db/eth0") {
				t.Errorf("who asked for it, too, was told: %v", err)
			}
			if out := s.sh("ip route show 10.42.0.10"); !strings.Contains(out, "192.0.2.12") {
				t.Errorf("the way to web2's is %q", out)
			}
		})
	}
}
