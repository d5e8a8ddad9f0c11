package overlay

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

func TestTheFixedRangeIsTheLastSixteenthUnlessTheNetworkSaysOtherwise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cidr, said, want string }{
		{"10.42.0.0/16", "", "10.42.240.0/20"},
		{"10.42.0.0/16", "10.42.8.0/24", "10.42.8.0/24"},
		{"10.42.0.0/16", "none", "invalid Prefix"},
		{"10.42.7.0/24", "", "10.42.7.240/28"},
		{"10.42.7.0/26", "", "invalid Prefix"}, // four blocks
		{"fd42::/48", "", "fd42:0:0:f000::/52"},
	} {
		n := Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}
		said := &n.Fixed
		if p := netip.MustParsePrefix(c.cidr); p.Addr().Is4() {
			n.CIDR = p
		} else {
			n.CIDR6, said = p, &n.Fixed6
		}
		if err := said.UnmarshalText([]byte(c.said)); err != nil {
			t.Fatal(err)
		}
		four, six := n.fixedRanges()
		if got := map[bool]netip.Prefix{true: six, false: four}[n.CIDR6.IsValid()]; got.String() != c.want {
			t.Errorf("%s, %q: %s, want %s", c.cidr, c.said, got, c.want)
		}
		if said.String() != c.said {
			t.Errorf("%q is written as %q", c.said, said)
		}
		if err := n.beside(nil); err != nil {
			t.Error(err)
		}
	}
}

func TestAFixedRangeThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"10.43.0.0/20":   "fixed: 10.43.0.0/20 is not a part of the network's addresses 10.42.0.0/24",
		"10.42.0.0/24":   "is not a part",
		"10.42.0.1/28":   "did you mean 10.42.0.0/28?",
		"10.42.0.240/28": "leaves no block",
	} {
		n := Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/24"), Block: 24, VNI: 42, Fixed: FixedRange{Prefix: netip.MustParsePrefix(said)}}
		if err := n.beside(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", said, err, want)
		}
	}
	if err := new(FixedRange).UnmarshalText([]byte("some")); err == nil {
		t.Error("a word was taken for a range")
	}
}

func TestASingleAddressOfAListedPeerIsAContainersAndNotItsOwn(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Store = "static"
	c.Peers = []Peer{
		{Name: "web1", Address: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.0.9/32"), netip.MustParsePrefix("10.42.1.0/24")}},
		{Name: "web2", Address: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/31")}},
	}
	err := c.Validate()
	if err == nil || strings.Contains(err.Error(), "peers[0]") || !strings.Contains(err.Error(), "peers[1].blocks[0]: 10.42.2.0/31 has no address for a container") {
		t.Errorf("%v", err)
	}
	if node, _ := nodeOf(c.Peers[0].Blocks); node.String() != "10.42.1.1" {
		t.Errorf("the node's own address is %s", node)
	}
}

func TestWhatAnotherHostsBlockHasIsRefusedWithItsHolder(t *testing.T) {
	t.Parallel()
	n := Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}
	sn, err := n.forStore()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{cluster: store.Cluster{Networks: []store.Network{sn}}}
	part := plan.Network{
		Name: "blue", CIDR: n.CIDR, Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")},
		Peers: []plan.Peer{{Name: "web2", Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24")}}},
	}
	for addr, want := range map[string]string{
		"10.42.240.5": "", "10.42.1.7": "own",
		"10.42.2.7": "10.42.2.7 is of the block 10.42.2.0/24, which host web2 holds; addresses that move between hosts are those of [10.42.240.0/20]",
		"10.42.3.7": "10.42.3.7 is of no block of this host; addresses that move",
	} {
		fixed, err := s.isFixed(part, netip.MustParseAddr(addr))
		switch {
		case want == "" && (!fixed || err != nil), want == "own" && (fixed || err != nil):
			t.Errorf("%s: fixed %t, %v", addr, fixed, err)
		case len(want) > 3 && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
}
