package plan

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

// Steps gives what leads from have to want: at the start and for repair. It is empty when they agree, so that a
// restart with nothing changed writes nothing. Links to containers are never made here: the other end's namespace
// belongs to an attach; one that is not wanted is removed.
func Steps(want Host, have Observed) []Step {
	var steps []Step
	links := diffLinks(want, have)
	// An attachment whose link is gone cannot be repaired from here; its owner will detach it.
	want.Attachments = only(want.Attachments, func(a Attachment) bool { return links.present[a.Link()] })
	// What stood on a link that goes, goes with it.
	kept := func(dev string) bool { return !links.gone[dev] }
	ways := diffWays(want, only(have.Routes, func(r Route) bool { return r.Unreachable || kept(r.Dev) }),
		only(have.Neighs, func(n Neigh) bool { return kept(n.Dev) }), only(have.FDB, func(f FDB) bool { return kept(f.Dev) }))
	addrs := diff(wantAddrs(want), only(have.Addrs, func(a Addr) bool { return kept(a.Dev) }),
		func(a Addr) Addr { return a })

	// First what is not wanted, then what is missing; forwarding only once the filter stands.
	steps = append(steps, ways.remove()...)
	for _, a := range addrs.extra {
		steps = append(steps, DeleteAddr{a})
	}
	steps = append(steps, links.remove...)
	steps = append(steps, tableSteps(wantTable(want), have.Table)...)
	steps = append(steps, sysctlSteps(want, have.Sysctls)...)
	steps = append(steps, links.make...)
	for _, a := range addrs.missing {
		steps = append(steps, AddAddr{a})
	}
	return append(steps, ways.write()...)
}

// ways are the differences in what leads to containers here and at peers.
type ways struct {
	routes difference[Route]
	neighs difference[Neigh]
	fdb    difference[FDB]
}

func diffWays(want Host, routes []Route, neighs []Neigh, fdb []FDB) ways {
	return ways{
		diff(wantRoutes(want), routes, func(r Route) Route { return Route{Dst: r.Dst, Metric: r.Metric} }),
		diff(wantNeighs(want), neighs, func(n Neigh) Neigh { return Neigh{Dev: n.Dev, IP: n.IP} }),
		diff(wantFDB(want), fdb, func(f FDB) FDB { return FDB{Dev: f.Dev, MAC: f.MAC} }),
	}
}

// remove takes away what is not wanted: routes first, so that nothing is sent where nothing is.
func (w ways) remove() (steps []Step) {
	for _, r := range w.routes.extra {
		steps = append(steps, DeleteRoute{r})
	}
	for _, n := range w.neighs.extra {
		steps = append(steps, DeleteNeigh{n})
	}
	for _, f := range w.fdb.extra {
		steps = append(steps, DeleteFDB{f})
	}
	return steps
}

// write makes what is missing: routes last.
func (w ways) write() (steps []Step) {
	for _, f := range w.fdb.missing {
		steps = append(steps, ReplaceFDB{f})
	}
	for _, n := range w.neighs.missing {
		steps = append(steps, ReplaceNeigh{n})
	}
	for _, r := range w.routes.missing {
		steps = append(steps, ReplaceRoute{r})
	}
	return steps
}

type linkDiff struct {
	remove, make []Step
	gone         map[string]bool // names of links that go
	present      map[string]bool // names of links that are there, or will be by their alias, and stay
}

func diffLinks(want Host, have Observed) linkDiff {
	d := linkDiff{gone: map[string]bool{}, present: map[string]bool{}}
	wanted := map[string]Link{}
	for _, n := range want.Networks {
		if n.Underlay.Addr.IsValid() {
			wanted[n.Device()] = vxlanLink(n)
		}
	}
	for _, a := range want.Attachments {
		wanted[a.Link()] = HostLink(a)
	}
	retired := false
	for _, l := range have.Links {
		w, ok := wanted[l.Name]
		name := l.Name
		if !ok {
			name = have.NameOf(l)
		}
		switch {
		case name != l.Name && !l.Retired && wanted[name].Kind == l.Kind && !d.present[name]:
			w := wanted[name]
			d.gone[l.Name], d.present[name] = true, true
			d.make = append(d.make, RenameLink{l.Name, name}, setLink(name, w, l))
		case !ok || l.Retired || !sameKind(w, l):
			d.gone[l.Name] = true
			if l.Kind != "veth" {
				d.remove = append(d.remove, DeleteLink{l.Name})
				continue
			}
			retired = true
			if !l.Retired {
				d.remove = append(d.remove, RetireLink{l.Name})
			}
		case w.MTU != l.MTU || !l.Up || w.Group != l.Group || w.MAC != l.MAC:
			d.make = append(d.make, setLink(l.Name, w, l))
			d.present[l.Name] = true
		default:
			d.present[l.Name] = true
		}
	}
	if retired {
		d.remove = append(d.remove, DeleteRetired{})
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if w := wanted[name]; w.Kind == "vxlan" && !d.present[name] {
			d.make = append(d.make, AddLink{w})
		}
	}
	return d
}

// setLink gives a link what it should have. Its MAC is left alone where it is right: setting it, even to what it is, takes
// the link's neighbours away (NETDEV_CHANGEADDR; seen on Linux 6.1).
func setLink(name string, want, have Link) SetLink {
	s := SetLink{Name: name, MTU: want.MTU, Group: want.Group, Up: true}
	if want.MAC != have.MAC {
		s.MAC = want.MAC
	}
	return s
}

// sameKind tells whether a link can stay; what else differs can be set.
func sameKind(want, have Link) bool {
	return want.Kind == have.Kind && want.VXLAN == have.VXLAN
}

func vxlanLink(n Network) Link {
	return Link{
		Name: n.Device(), Kind: "vxlan", MTU: n.MTU, MAC: n.Underlay.MAC, Up: true, Group: TunnelGroup,
		VXLAN: VXLAN{n.VNI, n.Port, n.Underlay.Addr},
	}
}

func wantRoutes(want Host) []Route {
	var out []Route
	for _, n := range want.Networks {
		// An address of the network that nobody has must not leave by the default route.
		for _, cidr := range n.CIDRs() {
			out = append(out, Route{Dst: cidr, Unreachable: true})
		}
		for _, p := range n.Peers {
			out = append(out, PeerRoutes(n, p)...)
		}
	}
	for _, a := range want.Attachments {
		for _, r := range HostRoutes(a) {
			if !want.Withdrawn[r.Dst.Addr()] {
				out = append(out, r)
			}
		}
	}
	return out
}

// PeerRoutes are the ways to a peer's containers, one for each block.
func PeerRoutes(n Network, p Peer) (out []Route) {
	for _, block := range p.Blocks {
		r := Route{Dst: block, Dev: n.Device(), Via: p.VTEP.hop(block), OnLink: true, Src: n.NodeOf(block), MTU: p.mtu(block), Metric: n.metric(block)}
		if p.isDirect(block) {
			r.Dev, r.OnLink = p.Near, false
		}
		out = append(out, r)
	}
	return out
}

// metric spreads the routes to very many blocks: the kernel compares each new IPv4 route with all that have the same device,
// source and metric (fib_find_info), which was four fifths of the first start with 5,000 peers. Each 65,536 addresses of a
// network have one, so that it is 0 in any network up to a /16. There a route that somebody puts in the place of ours replaces
// it, and is seen and put right; beyond, one of a lower metric stands before it.
func (n Network) metric(block netip.Prefix) uint32 {
	if !block.Addr().Is4() {
		return 0
	}
	at, first := block.Addr().As4(), n.CIDR.Addr().As4()
	return (binary.BigEndian.Uint32(at[:]) - binary.BigEndian.Uint32(first[:])) >> 16
}

// Repath gives what leads from one choice of paths to another, of the same peers: one route for each block.
func Repath(before, now []Network) (steps []Step) {
	for i, n := range now {
		for k, p := range n.Peers {
			if p.equal(before[i].Peers[k]) { // thousands are, each time
				continue
			}
			was := PeerRoutes(before[i], before[i].Peers[k])
			for j, r := range PeerRoutes(n, p) {
				if r != was[j] {
					steps = append(steps, ReplaceRoute{r})
				}
			}
		}
	}
	return steps
}

func wantNeighs(want Host) []Neigh {
	var out []Neigh
	for _, n := range want.Networks {
		for _, p := range n.Peers {
			for _, hop := range p.hops() {
				out = append(out, Neigh{n.Device(), hop, p.VTEP.MAC})
			}
		}
	}
	for _, a := range want.Attachments {
		out = append(out, HostNeighs(a)...)
	}
	return out
}

func wantFDB(want Host) []FDB {
	var out []FDB
	for _, n := range want.Networks {
		for _, p := range n.Peers {
			out = append(out, FDB{n.Device(), p.VTEP.MAC, p.VTEP.Addr})
		}
	}
	return out
}

// wantAddrs gives the host its own address on each network, by which it talks to containers anywhere.
func wantAddrs(want Host) []Addr {
	var out []Addr
	for _, n := range want.Networks {
		for _, node := range []netip.Addr{n.Node, n.Node6} {
			if n.Underlay.Addr.IsValid() && node.IsValid() {
				out = append(out, Addr{n.Device(), single(node)})
			}
		}
	}
	return out
}

type difference[T any] struct{ missing, extra []T }

// diff compares by whole value; an extra object whose key is wanted with another value is not listed, because
// replacing it is enough. Both lists keep the order that they came in: sorting thousands costs more than the rest.
func diff[T, K comparable](want, have []T, key func(T) K) difference[T] {
	var d difference[T]
	has, wanted := make(map[T]bool, len(have)), make(map[K]bool, len(want))
	for _, h := range have {
		has[h] = true
	}
	for _, w := range want {
		wanted[key(w)] = true
		if !has[w] {
			d.missing = append(d.missing, w)
		}
	}
	for _, h := range have {
		if !wanted[key(h)] {
			d.extra = append(d.extra, h)
		}
	}
	return d
}

func only[T any](list []T, keep func(T) bool) []T {
	var out []T
	for _, v := range list {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}
