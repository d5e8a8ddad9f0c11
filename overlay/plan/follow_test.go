package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// host is what steps of peers made of a host.
type hostState struct {
	routes map[netip.Prefix]Route
	neighs map[Neigh]MAC
	fdb    map[FDB]netip.Addr
	rest   Observed
}

func (h *hostState) do(t *testing.T, steps []Step) {
	t.Helper()
	for _, s := range steps {
		switch s := s.(type) {
		case AddLink:
			h.rest.Links = append(h.rest.Links, s.Link)
		case AddAddr:
			h.rest.Addrs = append(h.rest.Addrs, s.Addr)
		case SetSysctl:
			h.rest.Sysctls[s.Key] = s.Value
		case ReplaceTable:
			h.rest.Table = &s.Table
		case Admit:
			h.rest.Table.VTEPs = append(h.rest.Table.VTEPs, s.VTEPs...)
			h.rest.Table.Direct = append(h.rest.Table.Direct, s.Direct...)
			h.rest.Table.Disowned = append(h.rest.Table.Disowned, s.Disowned...)
			h.rest.Table.Sort()
		case Dismiss:
			h.rest.Table.Elements = Elements{
				VTEPs: without(h.rest.Table.VTEPs, s.VTEPs), Direct: without(h.rest.Table.Direct, s.Direct), Disowned: without(h.rest.Table.Disowned, s.Disowned),
			}
		case ReplaceRoute:
			h.routes[s.Dst] = s.Route
		case DeleteRoute:
			delete(h.routes, s.Dst)
		case ReplaceNeigh:
			h.neighs[Neigh{Dev: s.Dev, IP: s.IP}] = s.MAC
		case DeleteNeigh:
			delete(h.neighs, Neigh{Dev: s.Dev, IP: s.IP})
		case ReplaceFDB:
			h.fdb[FDB{Dev: s.Dev, MAC: s.MAC}] = s.Dst
		case DeleteFDB:
			delete(h.fdb, FDB{Dev: s.Dev, MAC: s.MAC})
		default:
			t.Fatalf("unexpected step %T", s)
		}
	}
}

func (h *hostState) observed() Observed {
	o := h.rest
	for _, r := range h.routes {
		o.Routes = append(o.Routes, r)
	}
	for n, mac := range h.neighs {
		o.Neighs = append(o.Neighs, Neigh{n.Dev, n.IP, mac})
	}
	for f, dst := range h.fdb {
		o.FDB = append(o.FDB, FDB{f.Dev, f.MAC, dst})
	}
	return o
}

func TestAfterFollowingTheHostHasWhatItWouldHaveFromTheStart(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	followed := 0
	defer func() {
		if followed < 500 {
			t.Errorf("seed %d: %d steps in all", seed, followed)
		}
	}()
	for range 500 {
		now := randomNetworks(r)
		h := &hostState{map[netip.Prefix]Route{}, map[Neigh]MAC{}, map[FDB]netip.Addr{}, Observed{Sysctls: map[string]string{}}}
		h.do(t, Steps(Host{Networks: now}, h.observed()))
		for range 4 {
			before := now
			now = changed(r, before)
			steps, ok := Follow(before, now)
			switch shared := sharedAddress(before) || sharedAddress(now); {
			case !ok && !shared:
				t.Fatalf("seed %d: not followed", seed)
			case !ok:
				steps = Steps(Host{Networks: now}, h.observed())
			}
			h.do(t, steps)
			if sharedAddress(now) {
				continue // whose neighbour entry it is cannot be said
			}
			followed += len(steps)
			if left := Steps(Host{Networks: now}, h.observed()); len(left) > 0 {
				t.Fatalf("seed %d: left to do after\n%sis\n%sfrom %v\nto %v", seed, Text(steps), Text(left), before[0].Peers, now[0].Peers)
			}
		}
	}
}

// sharedAddress tells whether two peers have one address.
func sharedAddress(networks []Network) bool {
	seen := map[netip.Addr]bool{}
	for _, p := range networks[0].Peers {
		if seen[p.VTEP.Addr] {
			return true
		}
		seen[p.VTEP.Addr] = true
	}
	return false
}

func randomNetworks(r *rand.Rand) []Network {
	out := []Network{{
		Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/48"), VNI: 42, Port: 4789, MTU: 1450,
		Node: netip.MustParseAddr("10.42.200.1"), Underlay: VTEP{Addr: netip.MustParseAddr("192.0.2.200"), MAC: VTEPMAC("self", 42)},
	}}
	for range r.IntN(8) {
		out = changed(r, out)
	}
	return out
}

// changed lets a peer come, go or change. Blocks have one holder; names and addresses are few, so that they come again.
func changed(r *rand.Rand, before []Network) []Network {
	out := slices.Clone(before)
	peers := slices.Clone(out[0].Peers)
	fresh := func(name string) Peer {
		p := Peer{Name: name, VTEP: VTEP{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + r.IntN(9))}), MAC: VTEPMAC(name, 42)}}
		for b := range byte(6) {
			held := slices.ContainsFunc(peers, func(q Peer) bool {
				return q.Name != name && slices.Contains(q.Blocks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, b, 0}), 24))
			})
			if !held && r.IntN(3) == 0 {
				p.Blocks = append(p.Blocks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, b, 0}), 24), netip.MustParsePrefix(fmt.Sprintf("fd42:0:0:%d::/64", b)))
			}
		}
		if r.IntN(2) == 0 {
			p.Near, p.MAC, p.Direct = "eth0", MAC{2, 0, 0, 0, 0, byte(r.IntN(3))}, r.IntN(2) == 0
		}
		if r.IntN(3) == 0 {
			p.MTU = 1300
		}
		if r.IntN(3) == 0 {
			p.Lost = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(r.IntN(6)), 0}), 24)}
		}
		return p
	}
	switch i := r.IntN(len(peers) + 2); {
	case i < len(peers) && r.IntN(2) == 0:
		peers = slices.Delete(peers, i, i+1)
	case i < len(peers):
		peers[i] = fresh(peers[i].Name)
	default:
		name := fmt.Sprint("web", r.IntN(8))
		if !slices.ContainsFunc(peers, func(p Peer) bool { return p.Name == name }) {
			peers = append(peers, fresh(name))
		}
	}
	out[0].Peers = peers
	return out
}

func TestPeersAreEqualWhenAllTheirFieldsAre(t *testing.T) {
	t.Parallel()
	full := Peer{
		Name: "a", VTEP: VTEP{Addr: netip.MustParseAddr("192.0.2.1")}, Blocks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		Lost: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, Near: "eth0", MAC: MAC{2}, Direct: true, MTU: 1, DirectMTU: 2,
	}
	if !full.equal(full) {
		t.Error("not equal to itself")
	}
	for i := range reflect.TypeFor[Peer]().NumField() {
		other := full
		field := reflect.ValueOf(&other).Elem().Field(i)
		if field.IsZero() {
			t.Errorf("%s is not tried", reflect.TypeFor[Peer]().Field(i).Name)
		}
		field.SetZero()
		if full.equal(other) {
			t.Errorf("equal with another %s", reflect.TypeFor[Peer]().Field(i).Name)
		}
	}
}
