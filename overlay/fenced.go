package overlay

import (
	"net/netip"
	"slices"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// holds tells whether addr is of this host's blocks.
func holds(n plan.Network, addr netip.Addr) bool {
	return slices.ContainsFunc(n.Blocks, func(b netip.Prefix) bool { return b.Contains(addr) })
}

// isFenced tells whether an attachment has an address that is not of this host's blocks (any more).
func isFenced(a plan.Attachment, n plan.Network) bool {
	return slices.ContainsFunc(a.Addrs(), func(addr netip.Addr) bool { return !holds(n, addr) })
}

// withdrawn gives the addresses of containers that this host has lost to others, by the word of a shared store: nothing
// leads to them any more. Those of a network that was removed stay, for nobody else has them. The session is locked.
func (s *session) withdrawn(all []plan.Attachment) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, a := range all {
		i := networkIndex(s.networks, a.Network)
		known := slices.ContainsFunc(s.cluster.Networks, func(n store.Network) bool { return n.Name == a.Network })
		if i < 0 || !known {
			continue
		}
		for _, addr := range a.Addrs() {
			if !holds(s.networks[i], addr) {
				out[addr] = true
			}
		}
	}
	return out
}

// tellFenced says, once each, which containers have an address of a block that this host has lost. They are taken off
// that address and else left alone: ending them is not ours. The session is locked.
func (s *session) tellFenced() {
	before := s.fenced
	s.fenced = map[plan.Key]bool{}
	for _, a := range s.table.all() {
		i := networkIndex(s.networks, a.Network)
		if i < 0 || !isFenced(a, s.networks[i]) {
			continue
		}
		s.fenced[a.Key] = true
		if !before[a.Key] {
			s.o.deps.Log.Error("a container has an address of a block that this host does not hold any more; others do not reach it; start it anew",
				"container", a.Owner, "network", a.Network, "addr", a.Addr, "err", s.cluster.Problem)
		}
	}
}
