package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/probe"
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
	// gatherNews is how long the store's news are gathered that come after a quiet while: an address that has moved is to be
	// reached at once.
	gatherNews = 20 * time.Millisecond
	// gatherOthers is how long changes of rules are gathered before a look at iptables, which starts processes.
	gatherOthers = time.Second
	// gatherPublished is how long changes are gathered before the board is told.
	gatherPublished = 50 * time.Millisecond
	// restAfter is how many times as long as the last publication took the next one waits at least.
	restAfter = 19
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
	limits   map[string]int          // what the kernel knows of the largest packets to peers, by name
	// otherVersion are the hosts that cannot be reached for the IP version of their address.
	otherVersion []string
	fenced       map[plan.Key]bool // attachments that were told to have addresses of a block of another host
	inUse        map[string]bool   // networks of attachments that are yet to be recovered
	taken        chan struct{}     // closed, and replaced, when a cluster was taken over

	prober    *probe.Prober // nil until the kernel's paths are adopted
	following *following    // nil until the first cluster is asked for

	// changing is held for reading by each attach and detach, for writing by repair: repair compares the whole host
	// with the table and must not see an attachment half made.
	changing sync.RWMutex
	left     bool // the cluster, or about to: guarded by changing
	keys     keyLocks
	leaving  leaving
	fixed    fixedUse
	singles  map[netip.Prefix]bool // single addresses of peers; guarded by mu
	wanting  sync.Mutex            // see needFromStore

	foreign bool // the journal holds records that we do not know
	// newCluster tells the next repair that a difference is the store's doing and not somebody's damage.
	newCluster atomic.Bool
	// passes tells that iptables' filter lets our links through, whatever its policy.
	passes    atomic.Bool
	retired   chan struct{} // a link waits for deletion
	published chan struct{} // the table changed
	repair    chan struct{} // something of ours is gone
	// lookingAgain: the last repair met a device that had just gone. Guarded by changing.
	lookingAgain bool
	others       chan struct{} // somebody changed rules: his own, perhaps
	found        chan struct{} // a peer was found on the segment, or lost there
}

// start opens everything and recovers. It changes the kernel only where it differs from what is wanted.
func (o *Overlay) start(ctx context.Context) (_ *session, err error) {
	began := time.Now()
	s := &session{o: o, table: newTable(), retired: make(chan struct{}, 1), published: make(chan struct{}, 1), repair: make(chan struct{}, 1), others: make(chan struct{}, 1), found: make(chan struct{}, 1), taken: make(chan struct{})}
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
	s.inUse = inUse
	if err := s.findFaults(func(network string) bool { return inUse[network] }); err != nil {
		return nil, err
	}
	if err := s.firstCluster(ctx); err != nil {
		return nil, err
	}
	return s, s.recover(ctx, remembered, began)
}

func (s *session) close() error {
	s.following.end()
	s.kernel.Close()
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

// want is all that this host should have now.
func (s *session) want() plan.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.table.all()
	return plan.Host{Networks: s.networks, Attachments: all, Withdrawn: s.withdrawn(all)}
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

// recover brings table and kernel together after a start that began then.
func (s *session) recover(ctx context.Context, journal map[plan.Key]remembered, began time.Time) error {
	log := s.o.deps.Log
	have, err := s.kernel.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	s.adoptPaths(have)
	r := recovered(journal, have, s.networks)
	for _, a := range r.keep {
		if _, err := s.table.take(a); err != nil {
			log.Warn("kept an attachment whose address is not of this host's blocks", "container", a.Owner, "addr", a.Addr, "network", a.Network, "err", err)
			s.table.keep(a)
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
	s.mu.Lock()
	s.inUse = nil
	s.mu.Unlock()
	s.changed()
	log.Info("overlay is up", "attachments", len(r.keep), "ended", len(r.end), "steps", len(steps), "networks", len(s.networks), "peers", len(s.cluster.Peers), "took", time.Since(began))
	return nil
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
	g.Go(s.probePeers)
	g.Go(s.followLimits)
	return g.Wait()
}

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

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
