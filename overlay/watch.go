package overlay

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// watch looks at what happens in the kernel: a container's link that is gone ends its attachment, and whatever else is
// missing of ours is put right.
func (s *session) watch(ctx context.Context) error {
	return s.kernel.Watch(ctx, func(c kernel.Change) {
		if _, attached := s.table.byName(c.LinkGone); attached || c.Lost {
			s.endVanished(ctx, c.LinkGone)
		}
		if s.concerns(c) {
			poke(s.repair)
		}
		if c.Settings || c.Lost {
			poke(s.others)
		}
		if c.Found.IsValid() && s.isPeer(c.Found) || c.Neigh.IsValid() && s.isPeer(c.Neigh) {
			poke(s.found)
		}
	})
}

// concerns tells whether something may have to be put right after c. What a detach removes itself does not count: it
// leaves the table first.
func (s *session) concerns(c kernel.Change) bool {
	switch {
	case c.Settings, c.Lost:
		return true
	case c.LinkGone != "":
		return strings.HasPrefix(c.LinkGone, plan.VXLANPrefix)
	case c.LinkSet.Name != "":
		a, attached := s.table.byName(c.LinkSet.Name)
		differs := c.LinkSet.MTU != a.MTU || c.LinkSet.Group != plan.Group || c.LinkSet.MAC != plan.HostMAC || !c.LinkSet.Up
		renamed := c.LinkSet.Group == plan.Group && !strings.HasPrefix(c.LinkSet.Name, plan.LinkPrefix)
		return attached && differs || renamed || strings.HasPrefix(c.LinkSet.Name, plan.VXLANPrefix)
	case c.Route.IsValid():
		return !c.Route.IsSingleIP() || s.table.has(c.Route.Addr()) || s.isPeers(c.Route)
	}
	if c.Leads.IsValid() { // perhaps as we set it ourselves
		return s.anyPeer(func(p plan.Peer) bool { return p.VTEP.MAC.LinkLocal() == c.Neigh && p.VTEP.Addr != c.Leads })
	}
	return s.table.has(c.Neigh) || s.isPeer(c.Neigh)
}

func (s *session) isPeer(addr netip.Addr) bool {
	return s.anyPeer(func(p plan.Peer) bool { return p.VTEP.Has(addr) })
}

func (s *session) anyPeer(is func(plan.Peer) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.networks, func(n plan.Network) bool { return slices.ContainsFunc(n.Peers, is) })
}

// isPeers tells whether a single address is a peer's.
func (s *session) isPeers(single netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.singles[single]
}

func (s *session) endVanished(ctx context.Context, name string) {
	for _, a := range s.table.all() {
		if name != "" && a.Link() != name {
			continue
		}
		// The event may be of an older link of that name.
		if _, there, err := s.kernel.LinkIndex(a.Link()); there || err != nil {
			continue
		}
		if err := s.detach(ctx, a.Key, a.NSID, "namespace is gone"); err != nil {
			s.o.deps.Log.Error("could not end an attachment whose link is gone", "container", a.Owner, "err", err)
		}
	}
}
