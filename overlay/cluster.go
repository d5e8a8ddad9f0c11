package overlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// retakeAfter is the pause before what could not be taken over is tried again.
const retakeAfter = 5 * time.Second

// following is the store's Follow, for one session.
type following struct {
	stop  context.CancelFunc
	ended chan struct{} // closed when Follow has returned err
	err   error
	news  chan struct{}

	mu   sync.Mutex
	last store.Cluster
}

// follow begins to follow the store.
func (s *session) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	f := &following{stop: cancel, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	s.following = f
	go func() {
		defer close(f.ended)
		f.err = agent.Go(ctx, func(ctx context.Context) error {
			return s.o.store.Follow(ctx, func(c store.Cluster) {
				f.mu.Lock()
				f.last = c
				f.mu.Unlock()
				poke(f.news)
			})
		})
	}()
}

// end stops following and waits for it.
func (f *following) end() {
	if f != nil {
		f.stop()
		<-f.ended
	}
}

func (f *following) cluster() store.Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// firstCluster waits for the store's first word, so that the table knows this host's blocks.
func (s *session) firstCluster(ctx context.Context) error {
	if err := s.present(); err != nil {
		return err
	}
	s.follow(ctx)
	var err error
	select {
	case <-s.following.news:
		return s.setCluster(s.following.cluster())
	case <-s.following.ended:
		err = s.following.err
	case <-ctx.Done():
	}
	return fmt.Errorf("read cluster from store %s: %w", s.o.store.Name(), cmp.Or(err, context.Cause(ctx)))
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
	if c.Networks != nil {
		if err := s.share(c); err != nil {
			return err
		}
	}
	s.tellOtherVersion(c, underlay)
	s.cluster, s.underlay, s.near, s.singles = c, underlay, segment, singlesOf(c.Peers)
	s.setNetworks()
	s.table.serve(s.networks)
	s.tellFenced()
	close(s.taken)
	s.taken = make(chan struct{})
	return nil
}

// tellOtherVersion says, when it changes, which hosts cannot be reached because their address on the underlay is of the
// other IP version than this host's. The session is locked.
func (s *session) tellOtherVersion(c store.Cluster, u kernel.Underlay) {
	var other []string
	for _, p := range c.Peers {
		if p.Addr.Is4() != u.Addr.Is4() {
			other = append(other, p.Name)
		}
	}
	if len(other) > 0 && !slices.Equal(other, s.otherVersion) {
		s.o.deps.Log.Error("hosts whose address is of the other IP version cannot be reached; set node.address there or here", "hosts", other, "addr", u.Addr)
	}
	s.otherVersion = other
}

// segment gives the peers that are on this host's segment and answer there, by their MACs.
func (s *session) segment(u kernel.Underlay, c store.Cluster) (map[netip.Addr]plan.MAC, error) {
	var near []netip.Addr
	for _, p := range c.Peers {
		if u.Net.IsValid() && p.Addr.Is4() && u.Net.Contains(p.Addr) { // plain packets are IPv4 via IPv4
			near = append(near, p.Addr)
		}
	}
	s.mu.Lock()
	listed, before := s.listed, s.near
	s.mu.Unlock()
	wanted := slices.ContainsFunc(listed, func(n Network) bool { return n.Path != "vxlan" })
	if len(near) == 0 || !wanted {
		return nil, nil
	}
	return s.kernel.Segment(u.Dev, near, before)
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
	// The store may have told of others meanwhile: their list is the one to be worked out anew.
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	cluster = s.cluster
	s.mu.Unlock()
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

// followStore takes over what the store tells. What cannot be taken leaves all as it was. It begins with what is taken
// already: peers on the segment may have answered before anybody listened.
func (s *session) followStore(ctx context.Context) error {
	poke(s.following.news)
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.following.ended:
			return s.following.err
		case <-s.following.news:
		}
		fault := ""
		if err := s.takeCluster(ctx, s.following.cluster()); err != nil && ctx.Err() == nil {
			fault = err.Error()
			time.AfterFunc(retakeAfter, func() { poke(s.following.news) })
		}
		if fault != "" && fault != told {
			s.o.deps.Log.Error("what the store tells could not be taken over; it is tried again and again", "store", s.o.store.Name(), "err", fault)
		}
		told = fault
		poke(s.published) // a block more or less changes what is wanted
	}
}

// takeCluster takes a cluster over. What is new of our own is in the kernel before a container can ask for it. Of a few
// changed peers only theirs is written; many follow by repair, at once.
func (s *session) takeCluster(ctx context.Context, c store.Cluster) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	own, before := s.own()
	if err := s.setCluster(c); err != nil {
		return err
	}
	ownNow, now := s.own()
	steps, few := plan.Follow(before, now)
	switch {
	case !slices.Equal(own, ownNow):
		s.newCluster.Store(true)
		return s.putRightLocked(ctx)
	case few && s.kernel.Apply(ctx, steps) == nil:
		if len(steps) > 0 {
			s.o.deps.Log.Info("hosts of the overlay changed", "steps", len(steps))
		}
	default:
		s.newCluster.Store(true)
		poke(s.repair)
	}
	return nil
}

// own tells which networks there are, and which blocks of them are ours; and all of them as they are.
func (s *session) own() (out []string, all []plan.Network) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		out = append(out, fmt.Sprint(n.Name, n.Blocks, n.MTU))
	}
	return out, s.networks
}
