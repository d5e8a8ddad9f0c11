package overlay

import (
	"net/netip"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

func TestWithdrawnIsWhatASharedStoreHasGivenToOthers(t *testing.T) {
	t.Parallel()
	blue := plan.Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/48"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("fd42:0:0:f000::5/128")}}
	lost := netip.MustParseAddr("10.42.240.5")
	all := []plan.Attachment{
		{Key: plan.Key{Owner: "whole"}, Network: "blue", Addr: netip.MustParseAddr("10.42.1.2")},
		{Key: plan.Key{Owner: "half"}, Network: "blue", Addr: lost, Addr6: netip.MustParseAddr("fd42:0:0:f000::5")},
	}
	for _, c := range []struct {
		name     string
		networks []store.Network
		want     int
	}{
		{"the store has the network", []store.Network{{Name: "blue"}}, 1},
		{"the network was removed: nobody has its addresses", []store.Network{}, 0},
		{"hosts share nothing", nil, 0},
	} {
		s := &session{networks: []plan.Network{blue}, cluster: store.Cluster{Networks: c.networks}}
		if got := s.withdrawn(all); len(got) != c.want || got[lost] != (c.want > 0) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
