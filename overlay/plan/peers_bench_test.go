package plan_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// BenchmarkStepsForFiveThousandPeers is what a start decides: with nothing there, and with nothing changed.
func BenchmarkStepsForFiveThousandPeers(b *testing.B) {
	n := plan.Network{
		Name: "many", CIDR: netip.MustParsePrefix("10.0.0.0/8"), VNI: 42, Port: 4789, MTU: 1450, Node: netip.MustParseAddr("10.100.0.1"),
		Underlay: plan.VTEP{Addr: netip.MustParseAddr("192.0.2.11"), MAC: plan.VTEPMAC("web0", 42)},
	}
	for i := range 5000 {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + i>>8), byte(i), 0}), 24)
		vtep := plan.VTEP{Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), MAC: plan.VTEPMAC(fmt.Sprint("web", i+1), 42)}
		n.Peers = append(n.Peers, plan.Peer{VTEP: vtep, Blocks: []netip.Prefix{block}})
	}
	want := plan.Host{Networks: []plan.Network{n}}
	var have plan.Observed
	for _, s := range plan.Steps(want, have) {
		switch s := s.(type) {
		case plan.AddLink:
			have.Links = append(have.Links, s.Link)
		case plan.AddAddr:
			have.Addrs = append(have.Addrs, s.Addr)
		case plan.ReplaceRoute:
			have.Routes = append(have.Routes, s.Route)
		case plan.ReplaceNeigh:
			have.Neighs = append(have.Neighs, s.Neigh)
		case plan.ReplaceFDB:
			have.FDB = append(have.FDB, s.FDB)
		case plan.ReplaceTable:
			have.Table = &s.Table
		case plan.SetSysctl:
			if have.Sysctls == nil {
				have.Sysctls = map[string]string{}
			}
			have.Sysctls[s.Key] = s.Value
		}
	}
	for _, c := range []struct {
		name  string
		have  plan.Observed
		least int
	}{{"first", plan.Observed{}, 15000}, {"unchanged", have, 0}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if steps := plan.Steps(want, c.have); len(steps) < c.least || c.least == 0 && len(steps) > 0 {
					b.Fatalf("%d steps:\n%s", len(steps), plan.Text(steps[:min(5, len(steps))]))
				}
			}
		})
	}
}
