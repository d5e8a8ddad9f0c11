package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

const (
	// repairEvery is the interval of the net below the events: everything is compared with the kernel.
	repairEvery = time.Minute
	// syncEvery bounds what a power cut can cost the journal, which matters to nothing but its own tidiness.
	syncEvery = time.Second
	// gatherRetired is how long links are gathered before one message deletes them all.
	gatherRetired = 20 * time.Millisecond
	// gatherRepair is how long changes are gathered before one look at the kernel: whoever flushes routes makes many
	// events, and his next one should find us done, not fighting him line by line.
	gatherRepair = 300 * time.Millisecond
	// gatherOthers is how long changes of rules are gathered before a look at iptables, which starts processes.
	gatherOthers = time.Second
	// compactAbove is the journal's size, in bytes, from which on it is rewritten.
	compactAbove = 1 << 20
)

// session is one life of Run: sockets, journal and table belong to it.
type session struct {
	o       *Overlay
	kernel  *kernel.Conn
	journal *state.Journal
	table   *table

	mu       sync.Mutex        // guards what follows
	listed   []Network         // the configuration's, and made
	made     []Network         // by command
	faults   map[string]string // networks that are not served, and why
	networks []plan.Network    // this host's part in those that are
	ownNS    string            // NamespaceID of the agent's own namespace
	cluster  store.Cluster
	underlay kernel.Underlay
	near     map[netip.Addr]plan.MAC // peers on this host's segment

	// changing is held for reading by each attach and detach, for writing by repair: repair compares the whole host
	// with the table and must not see an attachment half made.
	changing sync.RWMutex
	keys     keyLocks
	leaving  leaving

	foreign bool // the journal holds records that we do not know
	// newCluster tells the next repair that a difference is the store's doing and not somebody's damage.
	newCluster atomic.Bool
	retired    chan struct{} // a link waits for deletion
	published  chan struct{} // the table changed
	repair     chan struct{} // something of ours is gone
	others     chan struct{} // somebody changed rules: his own, perhaps
	found      chan struct{} // a peer was found on the segment, or lost there
}

// start opens everything and recovers. It changes the kernel only where it differs from what is wanted.
func (o *Overlay) start(ctx context.Context) (_ *session, err error) {
	s := &session{o: o, table: newTable(), retired: make(chan struct{}, 1), published: make(chan struct{}, 1), repair: make(chan struct{}, 1), others: make(chan struct{}, 1), found: make(chan struct{}, 1)}
	if s.kernel, err = kernel.Open(o.deps.Root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.ownNS, err = ownNamespace(); err != nil {
		return nil, err
	}
	boot, err := o.deps.Root.BootID()
	if err != nil {
		return nil, err
	}
	var remembered map[plan.Key]remembered
	if remembered, err = s.openJournal(boot); err != nil {
		return nil, err
	}
	if err := s.loadNetworks(); err != nil {
		return nil, err
	}
	inUse := map[string]bool{}
	for _, r := range remembered {
		inUse[r.Network] = true
	}
	if err := s.findFaults(func(network string) bool { return inUse[network] }); err != nil {
		return nil, err
	}
	if err := s.firstCluster(ctx); err != nil {
		return nil, err
	}
	return s, s.recover(ctx, remembered)
}

func (s *session) openJournal(boot string) (map[plan.Key]remembered, error) {
	j, records, err := s.o.deps.State.OpenJournal("journal", boot)
	if err != nil {
		return nil, err
	}
	s.journal = j
	remembered, unknown := replay(records)
	for _, err := range unknown {
		s.o.deps.Log.Error("journal record was not understood and is passed over; what it spoke of is learnt from the kernel", "err", err)
	}
	s.foreign = len(unknown) > 0
	return remembered, nil
}

func (s *session) close() error {
	s.kernel.Close()
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

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

// want is all that this host should have now.
func (s *session) want() plan.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return plan.Host{Networks: s.networks, Attachments: s.table.all()}
}

func (s *session) network(name string) (plan.Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := networkIndex(s.networks, name); i >= 0 {
		return s.networks[i], nil
	}
	if fault := s.faults[name]; fault != "" {
		return plan.Network{}, fmt.Errorf("network %s is not served: %s", name, fault)
	}
	unknown := &UnknownNetworkError{Name: name}
	for _, n := range s.networks {
		unknown.Known = append(unknown.Known, n.Name)
	}
	return plan.Network{}, unknown
}

// recover brings table and kernel together after a start.
func (s *session) recover(ctx context.Context, journal map[plan.Key]remembered) error {
	log := s.o.deps.Log
	have, err := s.kernel.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	r := recovered(journal, have, s.networks)
	for _, a := range r.keep {
		if _, err := s.table.take(a); err != nil {
			log.Warn("kept an attachment whose address is not of this host's blocks", "container", a.Owner, "addr", a.Addr, "network", a.Network, "err", err)
		}
		s.table.put(a)
	}
	for _, a := range r.adopted {
		log.Warn("adopted an attachment that the journal had lost", "container", a.Owner, "addr", a.Addr, "network", a.Network)
		if err := s.journal.Append(attachRecord(a)); err != nil {
			return err
		}
	}
	if err := s.rememberSysctls(have.Sysctls); err != nil {
		return err
	}
	steps := plan.Steps(s.want(), have)
	if err := s.kernel.Apply(ctx, steps); err != nil {
		return err
	}
	s.forgetFlows(ctx, r.end)
	for _, a := range r.end {
		if err := s.journal.Append(goneRecord(a.Key)); err != nil {
			return err
		}
		log.Info("attachment ended while the agent was away", "container", a.Owner, "addr", a.Addr, "network", a.Network)
	}
	if s.foreign {
		if err := s.keepForeign(); err != nil {
			return err
		}
	}
	s.changed()
	log.Info("overlay is up", "attachments", len(r.keep), "ended", len(r.end), "steps", len(steps), "networks", len(s.networks), "peers", len(s.cluster.Peers))
	return nil
}

// rememberSysctls records, once, what host-wide settings were before we changed them, so that they can be put back.
func (s *session) rememberSysctls(have map[string]string) error {
	const file = "sysctls.json"
	former := map[string]string{}
	if found, err := s.o.deps.State.ReadJSON(file, &former); found || err != nil {
		return err
	}
	return s.o.deps.State.WriteJSON(file, have)
}

// run keeps the host right until ctx ends.
func (s *session) run(ctx context.Context) error {
	g := agent.NewGroup(ctx)
	g.Go(s.followStore)
	g.Go(s.watch)
	g.Go(s.deleteRetired)
	g.Go(s.publish)
	g.Go(s.keepRight)
	g.Go(s.passOthers)
	g.Go(func(ctx context.Context) error {
		for wait(ctx, s.found) {
			if err := s.look(); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(s.tendJournal)
	return g.Wait()
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
		if c.Found.IsValid() && s.isPeer(c.Found) {
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
		differs := c.LinkSet.MTU != a.MTU || c.LinkSet.Group != plan.Group || !c.LinkSet.Up
		return attached && differs || strings.HasPrefix(c.LinkSet.Name, plan.VXLANPrefix)
	case c.Route.IsValid():
		return !c.Route.IsSingleIP() || s.table.has(c.Route.Addr())
	}
	return s.table.has(c.Neigh) || s.isPeer(c.Neigh)
}

func (s *session) isPeer(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.networks, func(n plan.Network) bool {
		return slices.ContainsFunc(n.Peers, func(p plan.Peer) bool { return p.VTEP.Addr == addr || p.VTEP.MAC.LinkLocal() == addr })
	})
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

// publish tells the board and the gauges, off the attach path.
func (s *session) publish(ctx context.Context) error {
	known := map[string]int{} // link indexes: asked for once, or each ADD would cost as many questions as there are containers
	for wait(ctx, s.published) {
		var out []container.Attachment
		indexes := map[string]int{}
		for _, a := range s.table.all() {
			made := a.NSID + " " + a.Link() // a link of that name for another namespace is another one
			index, ok := known[made]
			if !ok {
				var err error
				if index, ok, err = s.kernel.LinkIndex(a.Link()); err != nil {
					return err
				}
			}
			if ok {
				indexes[made] = index
				out = append(out, boardEntry(a, index))
			}
		}
		known = indexes
		s.o.deps.Board.Publish(out)
		s.o.attachments.Set(float64(s.table.count()))
		s.o.free.Set(float64(s.table.freeInAll()))
	}
	return nil
}

// keepRight compares the host with what is wanted, on events and now and then, and puts right what differs.
func (s *session) keepRight(ctx context.Context) error {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.repair:
			gather := time.NewTimer(gatherRepair)
			select {
			case <-gather.C:
			case <-ctx.Done():
			}
			gather.Stop()
		}
		if err := s.putRight(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// passOthers sees to it that other firewalls let through what we forward: at the start, and after each change of rules.
// A fault is told once and looked at again with the next change.
func (s *session) passOthers(ctx context.Context) error {
	told := ""
	for wait(ctx, s.others) {
		gather := time.NewTimer(gatherOthers)
		select {
		case <-gather.C:
		case <-ctx.Done():
		}
		gather.Stop()
		added, err := s.kernel.LetThrough()
		for _, rule := range added {
			s.o.deps.Log.Info("another firewall drops forwarded packets by policy; containers' links are let through", "rule", rule)
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			s.o.deps.Log.Error("could not see whether another firewall drops what is forwarded", "err", err)
		}
	}
	return nil
}

func (s *session) putRight(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.putRightLocked(ctx)
}

// putRightLocked is called with changing held.
func (s *session) putRightLocked(ctx context.Context) error {
	have, err := s.kernel.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	steps := plan.Steps(s.want(), have.WithoutRetired())
	if len(steps) == 0 {
		s.newCluster.Store(false)
		return nil
	}
	if s.newCluster.Swap(false) {
		s.o.deps.Log.Info("hosts of the overlay changed", "steps", len(steps))
	} else {
		s.o.deps.Log.Warn("host networking differed from what is wanted and was put right", "steps", len(steps), "first", steps[0].String())
		s.o.repaired.Add(uint64(len(steps)))
	}
	return s.kernel.Apply(ctx, steps)
}

// tendJournal brings the journal to the disk, off the attach path, and keeps it short.
func (s *session) tendJournal(ctx context.Context) error {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.journal.Sync(); err != nil {
			return err
		}
		if s.journal.Size() > compactAbove {
			if err := s.compact(); err != nil {
				return err
			}
		}
	}
}

// keepForeign sets a copy of the journal aside for a person, and goes on with what is known.
func (s *session) keepForeign() error {
	if err := s.o.deps.State.CopyAside("journal", errors.New("it holds records that this build does not know")); err != nil {
		return err
	}
	return s.compact()
}

func (s *session) compact() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	var records []any
	for _, a := range s.table.all() {
		records = append(records, attachRecord(a))
	}
	for _, a := range s.leaving.all() {
		records = append(records, attachRecord(a), detachRecord(a.Key))
	}
	return s.journal.Compact(records...)
}

func (s *session) changed() { poke(s.published) }

// poke sends to a channel of capacity one unless a poke is already waiting there.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait blocks for a poke; false means that ctx ended.
func wait(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}
