package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// firstCluster waits for the store's first word, so that the table knows this host's blocks.
func (s *session) firstCluster(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first *store.Cluster
	err := s.o.store.Follow(ctx, func(c store.Cluster) {
		if first == nil {
			first = &c
			cancel()
		}
	})
	if err == nil && first == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("read cluster from store %s: %w", s.o.store.Name(), err)
	}
	return s.setCluster(*first)
}

// setCluster works out this host's part in each network.
func (s *session) setCluster(c store.Cluster) error {
	want := s.o.deps.NodeAddr
	if c.Self.Addr.IsValid() {
		want = c.Self.Addr
	}
	underlay, err := s.kernel.FindUnderlay(want)
	switch {
	case errors.Is(err, kernel.ErrNoUnderlay) && len(c.Peers) == 0:
		underlay = kernel.Underlay{MTU: 1500} // alone, and with no way out: what Ethernet has
	case err != nil && s.known():
		// What flows goes on flowing; the new list of hosts is taken all the same.
		s.o.deps.Log.Error("underlay was not found; the one before stays in use", "err", err)
		underlay = s.underlayNow()
	case err != nil:
		return fmt.Errorf("find underlay: %w", err)
	}
	segment, err := s.segment(underlay, c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster, s.underlay, s.near = c, underlay, segment
	s.networks = s.o.cfg.networks(s.served(), c, underlay, segment)
	s.table.serve(s.networks)
	return nil
}

// segment gives the peers that are on this host's segment and answer there, by their MACs.
func (s *session) segment(u kernel.Underlay, c store.Cluster) (map[netip.Addr]plan.MAC, error) {
	var near []netip.Addr
	for _, p := range c.Peers {
		if u.Net.IsValid() && u.Net.Contains(p.Addr) {
			near = append(near, p.Addr)
		}
	}
	wanted := slices.ContainsFunc(s.o.cfg.Networks, func(n Network) bool { return n.Path == "direct" })
	if len(near) == 0 || !wanted {
		return nil, nil
	}
	return s.kernel.Segment(u.Dev, near)
}

// look finds out anew which peers answer on the segment, and goes on by VXLAN to one that does not.
func (s *session) look() error {
	s.mu.Lock()
	cluster, underlay, before := s.cluster, s.underlay, s.near
	s.mu.Unlock()
	now, err := s.segment(underlay, cluster)
	if err != nil || maps.Equal(now, before) { // most news are of an entry's age
		return err
	}
	s.o.deps.Log.Info("peers on this host's segment", "now", len(now), "before", len(before))
	if err := s.setCluster(cluster); err != nil {
		return err
	}
	s.newCluster.Store(true)
	poke(s.repair)
	return nil
}

// known tells whether a cluster has been taken already.
func (s *session) known() bool { return s.underlayNow().MTU > 0 }

func (s *session) underlayNow() kernel.Underlay {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.underlay
}

func (s *session) followStore(ctx context.Context) error {
	fault := make(chan error, 1)
	err := s.o.store.Follow(ctx, func(c store.Cluster) {
		if err := s.setCluster(c); err != nil {
			select {
			case fault <- err:
			default:
			}
			return
		}
		s.newCluster.Store(true)
		poke(s.repair)
	})
	select {
	case e := <-fault:
		return errors.Join(e, err)
	default:
		return err
	}
}
