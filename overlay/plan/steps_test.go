package plan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func blue() Network {
	return Network{
		Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/48"), VNI: 42, Port: 4789, MTU: 1450,
		Node: netip.MustParseAddr("10.42.1.1"), Node6: netip.MustParseAddr("fd42:0:0:1::1"),
		Blocks:   []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("fd42:0:0:1::/64")},
		Underlay: VTEP{Addr: netip.MustParseAddr("192.0.2.11"), MAC: MAC{2, 0xfa, 0, 0, 0, 1}},
		Peers: []Peer{{
			Name: "web2", VTEP: VTEP{Addr: netip.MustParseAddr("192.0.2.12"), MAC: MAC{2, 0xfa, 0, 0, 0, 2}},
			Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("fd42:0:0:2::/64")},
		}},
	}
}

func green() Network {
	return Network{Name: "green", CIDR: netip.MustParsePrefix("10.43.0.0/16"), VNI: 43}
}

func container() Attachment {
	return Attachment{
		Key: Key{"c1", "eth0"}, Network: "blue", Addr: netip.MustParseAddr("10.42.1.2"), Node: netip.MustParseAddr("10.42.1.1"),
		Addr6: netip.MustParseAddr("fd42:0:0:1::2"), Node6: netip.MustParseAddr("fd42:0:0:1::1"),
		MTU: 1450, Default: true, Default6: true, Reach: netip.MustParsePrefix("10.42.0.0/16"), Reach6: netip.MustParsePrefix("fd42::/48"),
		Ports: []Port{{HostPort: 8080, ContainerPort: 80, Protocol: TCP}, {HostIP: netip.MustParseAddr("192.0.2.11"), HostPort: 53, ContainerPort: 5353, Protocol: UDP}},
		NSID:  "4:9",
	}
}

// settled is a host on which everything stands.
func settled() Observed {
	link := HostLink(container())
	link.Index, link.Alias = 7, container().Alias()
	device := vxlanLink(blue())
	device.Index = 6
	network := Host{Networks: []Network{blue()}}
	table := wantTable(Host{Networks: []Network{blue()}, Attachments: []Attachment{container()}})
	return Observed{
		Links:   []Link{device, link},
		Addrs:   wantAddrs(network),
		Routes:  append(wantRoutes(network), HostRoutes(container())...),
		Neighs:  append(wantNeighs(network), HostNeighs(container())...),
		FDB:     wantFDB(network),
		Sysctls: map[string]string{forward4: "1", forward6: "1"},
		Table:   &table,
	}
}

func isVeth(l Link) bool { return l.Kind == "veth" }

func TestSteps(t *testing.T) {
	t.Parallel()
	whole := Host{Networks: []Network{blue()}, Attachments: []Attachment{container()}}
	link := container().Link()
	for _, c := range []struct {
		name string
		want Host
		have func(*Observed)
		text string
	}{
		{"nothing to do when all stands", whole, func(*Observed) {}, ""},
		{
			"an empty host gets the filter first and the routes last", Host{Networks: []Network{blue()}}, func(o *Observed) { *o = Observed{} }, `
nft replace table inet fairlead { overlay { 10.42.0.0/16, fd42::/48 } pairs { 10.42.0.0/16 . 10.42.0.0/16, fd42::/48 . fd42::/48 } open {  } links {  } tunnels { 4789 . 42 } vteps { 192.0.2.12 } direct {  } disowned {  } ports {  } } # and its 60 rules
sysctl -w net.ipv4.ip_forward=1
sysctl -w net.ipv6.conf.all.forwarding=1
ip link add fl-vx42 address 02:fa:00:00:00:01 mtu 1450 group 64032 up type vxlan id 42 dstport 4789 local 192.0.2.11 nolearning
ip addr add 10.42.1.1/32 dev fl-vx42
ip addr add fd42:0:0:1::1/128 dev fl-vx42
bridge fdb replace 02:fa:00:00:00:02 dev fl-vx42 dst 192.0.2.12 self permanent
ip neigh replace 192.0.2.12 lladdr 02:fa:00:00:00:02 dev fl-vx42 nud permanent
ip neigh replace fe80::fa:ff:fe00:2 lladdr 02:fa:00:00:00:02 dev fl-vx42 nud permanent
ip route replace unreachable 10.42.0.0/16 proto 94
ip route replace unreachable fd42::/48 proto 94
ip route replace 10.42.2.0/24 via 192.0.2.12 dev fl-vx42 onlink src 10.42.1.1 proto 94
ip route replace fd42:0:0:2::/64 via fe80::fa:ff:fe00:2 dev fl-vx42 onlink src fd42:0:0:1::1 proto 94`,
		},
		{
			"a peer with another address is replaced without a stale entry",
			Host{Networks: []Network{func() Network {
				n := blue()
				n.Peers[0].VTEP.Addr = netip.MustParseAddr("192.0.2.99")
				return n
			}()}, Attachments: []Attachment{container()}},
			func(*Observed) {}, `
ip neigh del 192.0.2.12 dev fl-vx42
nft delete element inet fairlead vteps4 { 192.0.2.12 }
nft add element inet fairlead vteps4 { 192.0.2.99 }
bridge fdb replace 02:fa:00:00:00:02 dev fl-vx42 dst 192.0.2.99 self permanent
ip neigh replace 192.0.2.99 lladdr 02:fa:00:00:00:02 dev fl-vx42 nud permanent
ip route replace 10.42.2.0/24 via 192.0.2.99 dev fl-vx42 onlink src 10.42.1.1 proto 94`,
		},
		{"a flushed route to a container returns", whole, func(o *Observed) { o.Routes = o.Routes[:4] }, `
ip route replace 10.42.1.2/32 dev ` + link + ` scope link src 10.42.1.1 proto 94
ip route replace fd42:0:0:1::2/128 dev ` + link + ` scope link src fd42:0:0:1::1 proto 94`},
		{"a link with another MAC gets its own back", whole, func(o *Observed) { o.Links[slices.IndexFunc(o.Links, isVeth)].MAC = MAC{2} }, `
ip link set ` + link + ` mtu 1450 group 64030 address ` + HostMAC.String() + ` up`},
		{"a link that was renamed gets its name back, and what stood on it", whole, func(o *Observed) {
			l := &o.Links[slices.IndexFunc(o.Links, isVeth)]
			l.Name, l.Alias = "foo0", container().Alias()
			o.Routes, o.Neighs = o.Routes[:4], slices.DeleteFunc(o.Neighs, func(n Neigh) bool { return n.Dev == link })
		}, `
ip link set foo0 down name ` + link + `
ip link set ` + link + ` mtu 1450 group 64030 up
ip neigh replace 10.42.1.2 lladdr ` + container().ContainerMAC().String() + ` dev ` + link + ` nud permanent
ip neigh replace fd42:0:0:1::2 lladdr ` + container().ContainerMAC().String() + ` dev ` + link + ` nud permanent
ip route replace 10.42.1.2/32 dev ` + link + ` scope link src 10.42.1.1 proto 94
ip route replace fd42:0:0:1::2/128 dev ` + link + ` scope link src fd42:0:0:1::1 proto 94`},
		{"a link that nobody is attached by goes, in a batch", Host{Networks: []Network{blue()}}, func(*Observed) {}, `
ip link set ` + link + ` group 64031
ip link del group 64031
nft delete element inet fairlead links { ` + link + ` . 02:fa:0a:2a:01:02 }
nft delete element inet fairlead any4 { tcp . 8080 : 10.42.1.2 . 80 }
nft delete element inet fairlead on4 { 192.0.2.11 . udp . 53 : 10.42.1.2 . 5353 }
nft delete element inet fairlead any6 { tcp . 8080 : fd42:0:0:1::2 . 80 }
nft delete element inet fairlead hairpin4 { 10.42.1.2 . 10.42.1.2 }
nft delete element inet fairlead hairpin6 { fd42:0:0:1::2 . fd42:0:0:1::2 }`},
		{
			"a peer on the same segment is reached plainly, and may send as long as it does not know that by VXLAN", Host{Networks: []Network{func() Network {
				n := blue()
				n.Peers[0].Near, n.Peers[0].MAC, n.Peers[0].Direct = "eth0", MAC{2, 0, 0, 0, 0, 12}, true
				return n
			}()}, Attachments: []Attachment{container()}},
			func(*Observed) {}, `
nft add element inet fairlead direct { 02:00:00:00:00:0c . 10.42.2.0/24 }
nft add element inet fairlead direct { 02:fa:00:00:00:02 . 10.42.2.0/24 }
ip route replace 10.42.2.0/24 via 192.0.2.12 dev eth0 src 10.42.1.1 proto 94`,
		},
		{
			"an address that was lost is withdrawn, and its new holder's is the route", Host{
				Networks: []Network{func() Network {
					n := blue()
					n.Peers[0].Blocks = append(n.Peers[0].Blocks, netip.MustParsePrefix("10.42.1.2/32"))
					return n
				}()},
				Attachments: []Attachment{container()}, Withdrawn: map[netip.Addr]bool{netip.MustParseAddr("10.42.1.2"): true},
			}, func(*Observed) {}, `
nft delete element inet fairlead any4 { tcp . 8080 : 10.42.1.2 . 80 }
nft delete element inet fairlead on4 { 192.0.2.11 . udp . 53 : 10.42.1.2 . 5353 }
nft delete element inet fairlead hairpin4 { 10.42.1.2 . 10.42.1.2 }
ip route replace 10.42.1.2/32 via 192.0.2.12 dev fl-vx42 onlink src 10.42.1.1 proto 94`,
		},
		{
			"who has lost addresses and may not know may not send from them", Host{Networks: []Network{func() Network {
				n := blue()
				n.Peers[0].Lost = []netip.Prefix{netip.MustParsePrefix("10.42.240.5/32"), netip.MustParsePrefix("fd42:0:0:9::/64")}
				return n
			}()}, Attachments: []Attachment{container()}}, func(*Observed) {}, `
nft add element inet fairlead disowned4 { 02:fa:00:00:00:02 . 10.42.240.5/32 }
nft add element inet fairlead disowned6 { 02:fa:00:00:00:02 . fd42:0:0:9::/64 }`,
		},
		{"one element that somebody took returns alone", whole, func(o *Observed) { o.Table.Forwards = o.Table.Forwards[1:] }, `
nft add element inet fairlead any4 { tcp . 8080 : 10.42.1.2 . 80 }`},
		{"networks that may talk make pairs both ways", Host{Networks: []Network{{Name: "blue", CIDR: blue().CIDR, Allow: []string{"green"}}, green()}},
			func(o *Observed) {
				*o = Observed{Sysctls: o.Sysctls, Routes: []Route{{Dst: blue().CIDR, Unreachable: true}, {Dst: green().CIDR, Unreachable: true}}}
			}, `
nft replace table inet fairlead { overlay { 10.42.0.0/16, 10.43.0.0/16 } pairs { 10.42.0.0/16 . 10.42.0.0/16, 10.42.0.0/16 . 10.43.0.0/16, 10.43.0.0/16 . 10.42.0.0/16, 10.43.0.0/16 . 10.43.0.0/16 } open {  } links {  } tunnels {  } vteps {  } direct {  } disowned {  } ports {  } } # and its 60 rules`},
		{"an attachment whose link is gone is not repaired", whole, func(o *Observed) {
			o.Links = o.Links[:1]
			o.Routes = o.Routes[:4]
			o.Neighs = o.Neighs[:2]
			o.Table.Links, o.Table.Forwards, o.Table.Hairpins = nil, nil, nil
		}, ""},
		{"a VXLAN device with another VNI is made anew with all that stood on it", whole, func(o *Observed) { o.Links[0].VXLAN.VNI = 7 }, `
ip link del fl-vx42
ip link add fl-vx42 address 02:fa:00:00:00:01 mtu 1450 group 64032 up type vxlan id 42 dstport 4789 local 192.0.2.11 nolearning
ip addr add 10.42.1.1/32 dev fl-vx42
ip addr add fd42:0:0:1::1/128 dev fl-vx42
bridge fdb replace 02:fa:00:00:00:02 dev fl-vx42 dst 192.0.2.12 self permanent
ip neigh replace 192.0.2.12 lladdr 02:fa:00:00:00:02 dev fl-vx42 nud permanent
ip neigh replace fe80::fa:ff:fe00:2 lladdr 02:fa:00:00:00:02 dev fl-vx42 nud permanent
ip route replace 10.42.2.0/24 via 192.0.2.12 dev fl-vx42 onlink src 10.42.1.1 proto 94
ip route replace fd42:0:0:2::/64 via fe80::fa:ff:fe00:2 dev fl-vx42 onlink src fd42:0:0:1::1 proto 94`},
		{"a single host has no VXLAN device", Host{Networks: []Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}}},
			func(o *Observed) { *o = Observed{Sysctls: o.Sysctls} }, `
nft replace table inet fairlead { overlay { 10.42.0.0/16 } pairs { 10.42.0.0/16 . 10.42.0.0/16 } open {  } links {  } tunnels {  } vteps {  } direct {  } disowned {  } ports {  } } # and its 60 rules
ip route replace unreachable 10.42.0.0/16 proto 94`},
	} {
		have := settled()
		c.have(&have)
		got := Text(Steps(c.want, have))
		if diff := cmp.Diff(strings.TrimPrefix(c.text, "\n"), strings.TrimSuffix(got, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestBlocksFarFromANetworksBeginningHaveMetricsOfTheirOwn(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	for block, want := range map[string]uint32{"10.0.0.0/24": 0, "10.0.255.0/24": 0, "10.2.0.0/24": 2, "10.200.7.9/32": 200, "fd42::/64": 0} {
		if got := (Network{CIDR: prefix("10.0.0.0/8")}).metric(prefix(block)); got != want {
			t.Errorf("%s: metric %d, want %d", block, got, want)
		}
	}
	// One that is there with another metric goes: it would stand before ours.
	n := Network{Name: "wide", CIDR: prefix("10.0.0.0/8"), VNI: 42, Peers: []Peer{{Name: "web2", VTEP: VTEP{Addr: netip.MustParseAddr("192.0.2.12")}, Blocks: []netip.Prefix{prefix("10.2.0.0/24")}}}}
	old := PeerRoutes(n, n.Peers[0])[0]
	old.Metric = 0
	steps := Text(Steps(Host{Networks: []Network{n}}, Observed{Routes: []Route{old}}))
	for _, want := range []string{"ip route del 10.2.0.0/24 via 192.0.2.12 dev fl-vx42 onlink proto 94\n", "ip route replace 10.2.0.0/24 via 192.0.2.12 dev fl-vx42 onlink metric 2 proto 94"} {
		if !strings.Contains(steps+"\n", want) {
			t.Errorf("no %q in:\n%s", want, steps)
		}
	}
}

func TestAttachAndDetachAsOneWouldTypeThem(t *testing.T) {
	t.Parallel()
	a := container()
	want := `ip link add flcEND address 02:fa:1e:ad:00:01 mtu 1450 group 64030 up type veth peer name eth0 address 02:fa:0a:2a:01:02 mtu 1450 netns /run/netns/c1
ip -n /run/netns/c1 link set lo up
ip -n /run/netns/c1 addr add 10.42.1.2/32 dev eth0
ip -n /run/netns/c1 addr add fd42:0:0:1::2/128 dev eth0
ip -n /run/netns/c1 link set eth0 up
ip -n /run/netns/c1 neigh replace 169.254.77.1 lladdr 02:fa:1e:ad:00:01 dev eth0 nud permanent
ip -n /run/netns/c1 neigh replace fe80::1 lladdr 02:fa:1e:ad:00:01 dev eth0 nud permanent
ip -n /run/netns/c1 route replace 169.254.77.1/32 dev eth0 scope link proto 94
ip -n /run/netns/c1 route replace 0.0.0.0/0 via 169.254.77.1 dev eth0 proto 94
ip -n /run/netns/c1 route replace fe80::1/128 dev eth0 scope link proto 94
ip -n /run/netns/c1 route replace ::/0 via fe80::1 dev eth0 proto 94
sysctl -w net.ipv4.conf.flcEND.route_localnet=1
ip neigh replace 10.42.1.2 lladdr 02:fa:0a:2a:01:02 dev flcEND nud permanent
ip neigh replace fd42:0:0:1::2 lladdr 02:fa:0a:2a:01:02 dev flcEND nud permanent
ip route replace 10.42.1.2/32 dev flcEND scope link src 10.42.1.1 proto 94
ip route replace fd42:0:0:1::2/128 dev flcEND scope link src fd42:0:0:1::1 proto 94
until ip link show flcEND | grep -q 'state UP'; do :; done
nft add element inet fairlead links { flcEND . 02:fa:0a:2a:01:02 }
nft add element inet fairlead any4 { tcp . 8080 : 10.42.1.2 . 80 }
nft add element inet fairlead on4 { 192.0.2.11 . udp . 53 : 10.42.1.2 . 5353 }
nft add element inet fairlead any6 { tcp . 8080 : fd42:0:0:1::2 . 80 }
nft add element inet fairlead hairpin4 { 10.42.1.2 . 10.42.1.2 }
nft add element inet fairlead hairpin6 { fd42:0:0:1::2 . fd42:0:0:1::2 }
conntrack -D -d 192.0.2.11 -p udp --dport 53
ip link set flcEND alias "fairlead blue 10.42.1.2,fd42:0:0:1::2 eth0 4:9 c1"
nft delete element inet fairlead links { flcEND . 02:fa:0a:2a:01:02 }
nft delete element inet fairlead any4 { tcp . 8080 : 10.42.1.2 . 80 }
nft delete element inet fairlead on4 { 192.0.2.11 . udp . 53 : 10.42.1.2 . 5353 }
nft delete element inet fairlead any6 { tcp . 8080 : fd42:0:0:1::2 . 80 }
nft delete element inet fairlead hairpin4 { 10.42.1.2 . 10.42.1.2 }
nft delete element inet fairlead hairpin6 { fd42:0:0:1::2 . fd42:0:0:1::2 }
ip route del 10.42.1.2/32 dev flcEND scope link src 10.42.1.1 proto 94
ip route del fd42:0:0:1::2/128 dev flcEND scope link src fd42:0:0:1::1 proto 94
ip link set flcEND group 64031
`
	steps := append(Attach(a, Namespace{Path: "/run/netns/c1"}), Detach(a)...)
	if diff := cmp.Diff(strings.ReplaceAll(want, "flcEND", a.Link()), Text(steps)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if n := len(a.Link()); n > 15 {
		t.Fatalf("link name %s has %d bytes, IFNAMSIZ allows 15", a.Link(), n)
	}
}

func TestASecondInterfaceReachesItsNetworkOnly(t *testing.T) {
	t.Parallel()
	a := container()
	a.Default = false
	if got := ContainerRoutes(a)[1].String(); got != "10.42.0.0/16 via 169.254.77.1 dev eth0 proto 94" {
		t.Fatalf("got %s", got)
	}
}

func TestAliasTellsTheAttachmentAgain(t *testing.T) {
	t.Parallel()
	a := container()
	a.Owner = "default-a b" // nobody promises that ids have no space
	got, ok := ParseAlias(a.Alias())
	want := Attachment{Key: a.Key, Network: a.Network, Addr: a.Addr, Addr6: a.Addr6, NSID: a.NSID}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" || !ok {
		t.Fatalf("ok %v (-want +got):\n%s", ok, diff)
	}
	long := strings.Repeat("r", 64)
	a.Owner = strings.Repeat("c", 64)
	for runtime, read := range map[string]string{"one": "one", "a b@c/ü": "a b@c/ü", long: long, strings.Repeat("ü", 32): ""} { // the last has no room
		a.Runtime = runtime
		got, ok := ParseAlias(a.Alias())
		if !ok || got.Runtime != read || got.NSID != a.NSID || got.Key != a.Key || len(a.Alias()) > maxAlias {
			t.Errorf("runtime %q came back as %q from %q", runtime, got.Runtime, a.Alias())
		}
	}
	for _, foreign := range []string{"", "uplink to rack 7", "fairlead blue 10.42.1.2 eth0 4:9@%zz c1", "fairlead blue nonsense eth0 4:9 c1", "fairlead blue 10.42.1.2,six eth0 4:9 c1"} {
		if _, ok := ParseAlias(foreign); ok {
			t.Errorf("%q was taken for ours", foreign)
		}
	}
}

func TestVTEPMACFollowsFromTheNodesNameAlone(t *testing.T) {
	t.Parallel()
	if VTEPMAC("web1", 42).String() != "02:fa:1a:51:5d:4e" || VTEPMAC("web1", 42) == VTEPMAC("web2", 42) || VTEPMAC("web1", 42) == VTEPMAC("web1", 43) {
		t.Fatal("MACs are not told apart by node and VNI")
	}
	if m := VTEPMAC("web1", 42); m[0]&3 != 2 {
		t.Fatalf("%s is not locally administered unicast", m)
	}
}

func TestLinksThatWaitForTheirDeletionAreNothingToPutRight(t *testing.T) {
	t.Parallel()
	have := settled()
	have.Links[1].Retired = true
	have.Routes = have.Routes[:4] // the detach took the host route
	have.Table.Links, have.Table.Forwards, have.Table.Hairpins = nil, nil, nil
	want := Host{Networks: []Network{blue()}}
	if steps := Steps(want, have.WithoutRetired()); len(steps) > 0 {
		t.Fatalf("would do:\n%s", Text(steps))
	}
	if steps := Steps(want, have); Text(steps) != "ip link del group 64031\n" {
		t.Fatalf("a start would do:\n%s", Text(steps))
	}
}

func TestAnotherPathIsOneRouteForEachBlock(t *testing.T) {
	t.Parallel()
	with := func(change func(*Peer)) []Network {
		n := blue()
		n.Peers[0].Near, n.Peers[0].MAC = "eth0", MAC{2, 0, 0, 0, 0, 12}
		change(&n.Peers[0])
		return []Network{n}
	}
	before := with(func(*Peer) {})
	for name, c := range map[string]struct {
		now  []Network
		text string
	}{
		"the same":    {with(func(*Peer) {}), ""},
		"direct":      {with(func(p *Peer) { p.Direct = true }), "ip route replace 10.42.2.0/24 via 192.0.2.12 dev eth0 src 10.42.1.1 proto 94\n"},
		"only direct": {with(func(p *Peer) { p.Direct, p.DirectMTU = true, 1400 }), "ip route replace 10.42.2.0/24 via 192.0.2.12 dev eth0 src 10.42.1.1 mtu 1400 proto 94\n"},
		"narrow, and IPv6 is never less than 1280": {with(func(p *Peer) { p.MTU = 1200 }), `ip route replace 10.42.2.0/24 via 192.0.2.12 dev fl-vx42 onlink src 10.42.1.1 mtu 1200 proto 94
ip route replace fd42:0:0:2::/64 via fe80::fa:ff:fe00:2 dev fl-vx42 onlink src fd42:0:0:1::1 mtu 1280 proto 94
`},
	} {
		if diff := cmp.Diff(c.text, Text(Repath(before, c.now))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(wantTable(Host{Networks: before}).String(), wantTable(Host{Networks: c.now}).String()); diff != "" {
			t.Errorf("%s: who is let in depends on the path (-before +now):\n%s", name, diff)
		}
	}
}
