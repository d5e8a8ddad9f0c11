package overlay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/probe"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

var (
	web2, web3 = netip.MustParseAddr("192.0.2.12"), netip.MustParseAddr("192.0.2.13")
	macOf2     = plan.MAC{2, 0, 0, 0, 0, 12}
)

// aSegment is a host with two peers, web2 on its segment, and a network of each path.
func aSegment(segment map[netip.Addr]plan.MAC) (list []Network, networks []plan.Network) {
	prefix := netip.MustParsePrefix
	list = []Network{
		{Name: "always", CIDR: prefix("10.41.0.0/16"), VNI: 41, Path: "vxlan", MTU: 1300},
		{Name: "auto", CIDR: prefix("10.42.0.0/16"), VNI: 42, Path: "auto"},
		{Name: "atonce", CIDR: prefix("10.43.0.0/16"), VNI: 43, Path: "direct"},
	}
	blocks := func(host string) []netip.Prefix {
		return []netip.Prefix{prefix("10.41." + host + ".0/24"), prefix("10.42.240." + host + "/32"), prefix("10.42." + host + ".0/24"), prefix("10.43." + host + ".0/24")}
	}
	cluster := store.Cluster{
		Self:  store.Node{Name: "web1", Blocks: blocks("1")},
		Peers: []store.Node{{Name: "web2", Addr: web2, Blocks: blocks("2")}, {Name: "web3", Addr: web3, Blocks: blocks("3")}},
	}
	under := kernel.Underlay{Dev: "eth0", Addr: netip.MustParseAddr("192.0.2.11"), MTU: 1500, Net: prefix("192.0.2.0/24")}
	return list, DefaultConfig().networks(list, cluster, under, segment)
}

// devices gives by which device the first peer's blocks are reached, network by network, and with which MTU.
func devices(networks []plan.Network) (out []string) {
	for _, n := range networks {
		for _, r := range plan.PeerRoutes(n, n.Peers[0]) {
			if !r.Dst.IsSingleIP() {
				d := r.Dev
				if r.MTU > 0 {
					d += " narrow"
				}
				out = append(out, d)
			}
		}
	}
	return out
}

// only gives what is known where that is of web2.
func only(s probe.State) func(name string) probe.State {
	return func(name string) probe.State {
		if name == "web2" {
			return s
		}
		return probe.State{}
	}
}

func TestThePathFollowsFromTheNetworkAndTheProof(t *testing.T) {
	t.Parallel()
	list, networks := aSegment(map[netip.Addr]plan.MAC{web2: macOf2})
	way := func(mtu int) probe.Way { return probe.Way{MTU: mtu, Full: 1450} }
	for _, c := range []struct {
		name  string
		state probe.State
		want  []string
	}{
		{"not tried yet", probe.State{Proof: probe.Untried}, []string{"fl-vx41", "fl-vx42", "eth0"}},
		{"proven", probe.State{Proof: probe.Works}, []string{"fl-vx41", "eth0", "eth0"}},
		{"failed", probe.State{Proof: probe.Fails}, []string{"fl-vx41", "fl-vx42", "fl-vx43"}},
		{"on trial", probe.State{Proof: probe.Fails, Trial: true}, []string{"fl-vx41", "eth0", "eth0"}},
		{"VXLAN is narrow", probe.State{Proof: probe.Works, Ways: [2]probe.Way{way(1350), way(1450)}}, []string{"fl-vx41", "eth0", "eth0"}},
		{"VXLAN is narrow and in use", probe.State{Proof: probe.Fails, Ways: [2]probe.Way{way(1350), way(1450)}}, []string{"fl-vx41", "fl-vx42 narrow", "fl-vx43 narrow"}},
		{"direct is narrow", probe.State{Proof: probe.Works, Ways: [2]probe.Way{way(1200), way(1400)}}, []string{"fl-vx41 narrow", "eth0 narrow", "eth0 narrow"}},
	} {
		now := choosePaths(networks, list, only(c.state))
		if got := devices(now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if n := len(plan.Repath(networks, now)); n > 6 {
			t.Errorf("%s: %d steps for one peer", c.name, n)
		}
	}
	if len(plan.Repath(networks, networks)) > 0 {
		t.Error("steps without a change")
	}
}

func TestEachPeerIsProbedOnceOnTheNetworkOfTheLargestPackets(t *testing.T) {
	t.Parallel()
	_, networks := aSegment(map[netip.Addr]plan.MAC{web2: macOf2})
	got := targets(networks, map[string]int{"web3": 1400}, nil, probe.New().Hops)
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	from, to := netip.MustParseAddr("10.42.1.1"), netip.MustParseAddr("10.42.2.1")
	want := [2]probe.Hop{
		{Dev: "fl-vx42", MAC: plan.VTEPMAC("web2", 42), From: from, To: to, Full: 1450},
		{Dev: "eth0", MAC: macOf2, From: from, To: to, Full: 1450},
	}
	if got[0].Hops != want {
		t.Errorf("web2: %+v, want %+v", got[0].Hops, want)
	}
	if hops := got[1].Hops; hops[probe.Direct] != (probe.Hop{}) || hops[probe.VXLAN].Full != 1350 {
		t.Errorf("web3, of which the kernel knows that 1400 bytes pass: %+v", hops)
	}
}

func TestANewNetworkForgetsNothingOfThePaths(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	blue := Network{Name: "blue", CIDR: prefix("10.42.0.0/16"), VNI: 42, Path: "auto"}
	under := kernel.Underlay{Dev: "eth0", Addr: netip.MustParseAddr("192.0.2.11"), MTU: 1500, Net: prefix("192.0.2.0/24")}
	near := map[netip.Addr]plan.MAC{web2: macOf2}
	prober := probe.New()
	choose := func(list []Network, found map[string]foundPath, second ...string) []plan.Network {
		cluster := store.Cluster{Self: store.Node{Name: "web1", Addr: under.Addr}, Peers: []store.Node{{Name: "web2", Addr: web2}}}
		for _, net := range second {
			cluster.Self.Blocks = append(cluster.Self.Blocks, prefix("10."+net+".1.0/24"))
			cluster.Peers[0].Blocks = append(cluster.Peers[0].Blocks, prefix("10."+net+".2.0/24"))
		}
		networks := DefaultConfig().networks(list, cluster, under, near)
		prober.Set(targets(networks, nil, found, prober.Hops))
		return choosePaths(networks, list, prober.State)
	}
	known := map[string]foundPath{"web2": {addr: web2, direct: true, mtu: [2]int{1300, 1400}}}
	before := choose([]Network{blue}, known, "42")[0].Peers[0]
	if !before.Direct || before.MTU != 1300 || before.DirectMTU != 1400 {
		t.Fatalf("%+v", before)
	}
	now := choose([]Network{{Name: "aaa", CIDR: prefix("10.41.0.0/16"), VNI: 41, Path: "auto"}, blue}, nil, "41", "42")
	for _, n := range now {
		if p := n.Peers[0]; p.Direct != before.Direct || p.MTU != before.MTU || p.DirectMTU != before.DirectMTU {
			t.Errorf("%s: %+v", n.Name, p)
		}
	}
}

func TestOverIPv6APeerWithNothingButAFixedAddressIsReached(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	list := []Network{{Name: "blue", CIDR: prefix("10.42.0.0/16"), VNI: 42}}
	cluster := store.Cluster{
		Self:  store.Node{Name: "web1", Blocks: []netip.Prefix{prefix("10.42.1.0/24")}},
		Peers: []store.Node{{Name: "web2", Addr: netip.MustParseAddr("2001:db8::12"), Blocks: []netip.Prefix{prefix("10.42.240.7/32"), prefix("10.42.240.9/32")}}},
	}
	under := kernel.Underlay{Dev: "eth0", Addr: netip.MustParseAddr("2001:db8::11"), MTU: 1500}
	steps := plan.Text(plan.Steps(plan.Host{Networks: DefaultConfig().networks(list, cluster, under, nil)}, plan.Observed{}))
	for _, want := range []string{"ip neigh replace 10.42.240.7 lladdr", "ip route replace 10.42.240.9/32 via 10.42.240.7 dev fl-vx42"} {
		if !strings.Contains(steps, want) || strings.Contains(steps, "invalid") {
			t.Errorf("no %q in:\n%s", want, steps)
		}
	}
}

// A host that starts again finds the routes of its last life, and its neighbours forgotten perhaps.
func TestARestartBeginsWithThePathsThatTheKernelHas(t *testing.T) {
	t.Parallel()
	near := map[netip.Addr]plan.MAC{web2: macOf2}
	list, networks := aSegment(near)
	before := choosePaths(networks, list, only(probe.State{Proof: probe.Works, Ways: [2]probe.Way{{MTU: 1350}, {MTU: 1400}}}))
	have := plan.Observed{Table: &plan.Table{}}
	for _, n := range before {
		for _, p := range n.Peers {
			have.Routes = append(have.Routes, plan.PeerRoutes(n, p)...)
		}
	}
	for _, b := range before[1].Peers[0].Blocks {
		have.Table.Direct = append(have.Table.Direct, plan.MACBlock{MAC: plan.VTEPMAC("web2", 42), Block: b}, plan.MACBlock{MAC: macOf2, Block: b})
	}
	_, unknown := aSegment(nil)
	found := pathsOf(unknown, have, "eth0")
	if f := found["web2"]; !f.direct || f.mac != macOf2 || f.mtu[probe.Direct] != 1400 {
		t.Fatalf("web2: %+v", f)
	}
	if f := found["web3"]; f.direct {
		t.Fatalf("web3: %+v", f)
	}
	prober := probe.New()
	prober.Set(targets(networks, nil, found, prober.Hops))
	now := choosePaths(networks, list, prober.State)
	if steps := plan.Repath(before, now); len(steps) > 0 {
		t.Fatalf("a restart would do:\n%s", plan.Text(steps))
	}
}
