package plan

import (
	"net/netip"
	"reflect"
	"slices"
)

// followedAtOnce bounds the changed peers of one Follow: with more of them Steps costs less.
const followedAtOnce = 100

// Follow gives what leads from one list of peers to another, when nothing else changed and few peers did: the host's
// thousands of other peers are not looked at in the kernel. False: Steps is to be asked. A host that is as before has
// after these steps what Steps would give it.
func Follow(before, now []Network) (steps []Step, ok bool) {
	if len(before) != len(now) {
		return nil, false
	}
	was, is := slices.Clone(before), slices.Clone(now)
	changed := 0
	for i := range now {
		a, b := before[i], now[i]
		a.Peers, b.Peers = nil, nil
		if !reflect.DeepEqual(a, b) {
			return nil, false
		}
		was[i].Peers, is[i].Peers = between(before[i].Peers, now[i].Peers)
		changed += len(was[i].Peers) + len(is[i].Peers)
	}
	if changed > followedAtOnce {
		return nil, false
	}
	old, want := Host{Networks: was}, Host{Networks: is}
	ways := diffWays(want, wantRoutes(old), wantNeighs(old), wantFDB(old))
	// Two names may have one address for a moment: a host that was made anew. What of one goes may be the other's.
	theirs := func(n Neigh) bool {
		return anyPeer(now, func(p Peer) bool { return p.VTEP.Has(n.IP) && slices.Contains(p.hops(), n.IP) })
	}
	if slices.ContainsFunc(ways.neighs.extra, theirs) {
		return nil, false
	}
	had, has := wantTable(old).Elements, wantTable(want).Elements
	gone, come := has.missingFrom(had, true), has.missingFrom(had, false)
	gone.VTEPs = slices.DeleteFunc(gone.VTEPs, func(a netip.Addr) bool { return anyPeer(now, func(p Peer) bool { return p.VTEP.Addr == a }) })
	steps = ways.remove()
	if !gone.empty() {
		steps = append(steps, Dismiss{gone})
	}
	if !come.empty() {
		steps = append(steps, Admit{come})
	}
	return append(steps, ways.write()...), true
}

func anyPeer(networks []Network, is func(Peer) bool) bool {
	return slices.ContainsFunc(networks, func(n Network) bool { return slices.ContainsFunc(n.Peers, is) })
}

// between leaves out what two lists have in common at their beginnings and ends.
func between(a, b []Peer) (restA, restB []Peer) {
	for len(a) > 0 && len(b) > 0 && a[0].equal(b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1].equal(b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

func (p Peer) equal(q Peer) bool {
	return p.Name == q.Name && p.VTEP == q.VTEP && slices.Equal(p.Blocks, q.Blocks) && slices.Equal(p.Lost, q.Lost) &&
		p.Near == q.Near && p.MAC == q.MAC && p.Direct == q.Direct && p.MTU == q.MTU && p.DirectMTU == q.DirectMTU
}
