package metrics

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// view is what one scrape reads: it is replaced as a whole and never modified after that.
type view struct {
	snap     *container.Snapshot
	services []host.Membership
	slots    []*slot
	byLink   map[int]netReading // host link index → whose it is, with the labels
	// inside are the slots whose counters must be read in their own network namespace.
	inside []*slot
	ended  []*ended // oldest first
}

// slot is one container with what is open for it.
type slot struct {
	key      key
	index    int // in the view
	runtime  container.Runtime
	id       container.ID
	name     string
	pod      container.Pod
	image    string
	root     bool // the root cgroup
	health   string
	restarts int
	several  bool // not a container but a cgroup that holds several
	created  time.Time
	started  time.Time
	labels   *expo.Labels
	layer    string // its writable layer, when that is to be known
	volumes  []container.Mount
	reader   *cgroup.Reader
	net      network
	life     *life
}

// life is what a container keeps from one view to the next.
type life struct {
	busy   sync.Mutex // held while its cgroup is read: a read that hangs is not joined by another
	failed bool       // the last read failed; guarded by busy
	pidfd  *os.File   // of its first process; nil when that is not watched; guarded by Metrics.mu
	final  atomic.Pointer[final]
}

// sync makes the view that of snap: opens what is new, closes what is gone, keeps the rest. An older snapshot than the
// one in use is passed over: the followed one and the one asked for by a scrape may overtake each other.
func (m *Metrics) sync(snap *container.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	services := m.services()
	if old := m.view.snap; snap == nil || (m.tree != nil && old != nil &&
		(snap.Seq < old.Seq || snap == old && sameServices(services, m.view.services))) {
		return
	}
	if m.tree == nil {
		if !m.findTree() {
			return
		}
		services = m.services()
	}
	have := make(map[key]*slot, len(m.view.slots))
	lives := make(map[key]int, len(m.view.slots))
	for _, s := range m.view.slots {
		have[s.key] = s
		lives[s.key.unpid()] = s.key.pid
	}
	// Without knowing our own namespace, a container that shares it could not be told from one that does not.
	own, err := host.StatNetNS(filepath.Join(m.deps.Root.Proc, "self/ns/net"))
	ours := func(ns host.NetNS) bool { return err != nil || ns == own }
	next := view{snap: snap, services: services, byLink: map[int]netReading{}}
	ts := targets(snap)
	ts = slices.DeleteFunc(ts, func(t target) bool { return !m.cfg.wanted(t.c) })
	if m.cfg.Aggregates {
		ts = append(ts, aggregates(ts)...)
	}
	ts = append(ts, serviceTargets(services, ts)...)
	for _, t := range ts {
		k := t.key()
		if pid, ok := lives[k.unpid()]; ok && k.pid == 0 {
			k.pid = pid // its process has ended; its life has not, for its last sample counts once
		}
		s := &slot{
			key: k, several: t.aggregate, root: t.cgroup.IsZero(), health: t.c.Health, restarts: t.c.Restarts, runtime: t.c.Runtime, id: t.c.ID, name: t.c.Name, pod: t.c.Pod, image: t.c.Image, created: t.c.Created, started: t.c.Started,
		}
		old := have[k]
		if delete(have, k); old != nil {
			s.reader, s.life = old.reader, old.life
		} else {
			s.life = new(life)
			if t.cgroup.IsZero() {
				s.reader = m.tree.Root()
			} else {
				s.reader = m.tree.Reader(t.cgroup)
			}
		}
		if old == nil && !t.aggregate {
			m.watch(s)
		}
		if s.labels = expo.NewLabels(t.labels).Since(m.since(t.c)); old != nil && old.labels.String() == string(t.labels) {
			s.labels = old.labels
		}
		if m.disk != nil {
			s.layer, s.volumes = trees(t.c)
		}
		s.net = m.network(t, old, ours)
		for _, l := range s.net.links {
			n := netReading{slot: s, labels: s.labels.With("interface", l.name)}
			if before, ok := m.view.byLink[l.index]; ok && before.labels.String() == n.labels.String() {
				n.labels = before.labels
			}
			next.byLink[l.index] = n
		}
		if s.net.inside != "" {
			next.inside = append(next.inside, s)
		}
		s.index = len(next.slots)
		next.slots = append(next.slots, s)
	}
	var buried []*ended
	for _, gone := range have {
		if e := m.bury(gone, snap); e != nil {
			buried = append(buried, e)
		}
	}
	buried = append(buried, m.unseen(snap)...)
	next.ended = m.remember(m.view.ended, buried, snap, m.deps.Now())
	m.view = next
	m.wantDisk(next)
}

// since tells when the counters of c began, if that is to be shown.
func (m *Metrics) since(c *container.Container) time.Time {
	if !m.cfg.Created {
		return time.Time{}
	}
	return c.Started
}

// current gives the view of the newest snapshot.
func (m *Metrics) current() view {
	m.sync(m.deps.Inventory.Snapshot())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tree != nil {
		m.tree.Refresh()
	}
	return m.view
}

// findTree finds the cgroup hierarchies. Until that succeeds it is tried again at each sync.
func (m *Metrics) findTree() bool {
	mounts, err := m.deps.Root.Cgroups()
	if err != nil {
		if m.cost.failed("mounts").Inc(); !m.treeless {
			m.deps.Log.Error("cgroup hierarchies not found: no container can be measured", "err", err)
		}
		m.treeless = true
		return false
	}
	m.treeless = false
	m.deps.Log.Info("cgroup hierarchies found", "mode", mounts.Mode())
	m.tree = cgroup.NewTree(mounts, m.deps.Descriptors)
	m.tree.CountFiles(m.deps.Root.Proc)
	if slices.Contains(m.cfg.Also, "sockets") {
		m.tree.CountSockets(m.deps.Root.Proc)
	}
	m.tree.Skip(m.cfg.excluded()...)
	if err := m.tree.Watch(); err != nil {
		m.deps.Log.Warn("limits are not watched but read at each scrape", "err", err)
	}
	return true
}

// currentTree gives the tree, or nil while there is none.
func (m *Metrics) currentTree() *cgroup.Tree {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tree
}

func (m *Metrics) closeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.view.slots {
		s.reader.Close()
		if s.life.pidfd != nil {
			_ = s.life.pidfd.Close()
		}
	}
	m.view = view{}
	m.watchers.Wait()
}
