package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

// Etcd is a cluster in an existing etcd (v3). It keeps one session and one watch.
//
//	Follow: grant session, read all ─> learn, decide ─> one write ─> its event ─> learn, decide ─> ...
type Etcd struct {
	cfg  EtcdConfig
	deps EtcdDeps

	mu      sync.Mutex
	self    Identity
	wants   Wants
	leaving *leave // not nil: to leave is asked for
	known   map[string]Lease
	held    []netip.Prefix // this host's blocks, as published, without those that are being given back
	claims  []*pending
	away    error // why claims are not heard

	changed chan struct{} // wants or leaving changed
	broken  chan struct{} // a connection to etcd was lost

	requests, resyncs *stat.Counter
	up                *stat.Gauge
	clientMu          sync.Mutex
	client            *clientv3.Client
}

// EtcdDeps are what an Etcd stands on.
type EtcdDeps struct {
	Log   *slog.Logger
	Stats *stat.Registry
	// State keeps what is known over restarts.
	State interface {
		WriteJSON(name string, v any) error
		ReadJSON(name string, v any) (bool, error)
	}
}

// memoryFile is what the state directory keeps.
const memoryFile = "etcd.json"

// NewEtcd makes a store of a valid configuration. It connects to nothing.
func NewEtcd(cfg EtcdConfig, deps EtcdDeps) *Etcd {
	cfg.Prefix += "/"
	return &Etcd{
		cfg: cfg, deps: deps, changed: make(chan struct{}, 1), broken: make(chan struct{}, 1),
		requests: deps.Stats.Counter("fairlead_overlay_store_requests_total", "Requests to etcd: reads, transactions, session grants and renewals."),
		resyncs:  deps.Stats.Counter("fairlead_overlay_store_reads_total", "Times that everything was read from etcd: at the start, and after a connection or a watch was lost."),
		up:       deps.Stats.Gauge("fairlead_overlay_store_up", "1 while this host has a session with etcd."),
	}
}

// Name is "etcd".
func (e *Etcd) Name() string { return "etcd" }

// Present says who this host is; see Shared.
func (e *Etcd) Present(self Identity) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.self = self
}

// Want says what this host needs; see Shared.
func (e *Etcd) Want(w Wants) {
	e.mu.Lock()
	same := reflect.DeepEqual(e.wants, w)
	e.wants = w
	e.mu.Unlock()
	if !same {
		poke(e.changed)
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// follower is one life of Follow.
type follower struct {
	*Etcd
	n         node
	publish   func(Cluster)
	published *Cluster
	view      *view
	last      step
	told      map[string]int64 // records that were passed over, by key: the revision
	problem   string           // told last
	unsaved   bool
	gather    *time.Timer // runs while something is to be told
}

// gatherFor is how long news are gathered before they are told: when many hosts join at once there are many.
const gatherFor = 20 * time.Millisecond

// firstBackoff and longestBackoff bound the time between two attempts to reach etcd.
const (
	firstBackoff   = 500 * time.Millisecond
	longestBackoff = 15 * time.Second
)

// Follow publishes the cluster; see Store. While etcd is away at the start it publishes what was known last.
func (e *Etcd) Follow(ctx context.Context, publish func(Cluster)) error {
	f := &follower{Etcd: e, publish: publish, told: map[string]int64{}, gather: time.NewTimer(time.Hour)}
	f.gather.Stop()
	defer f.gather.Stop()
	if err := f.remember(); err != nil {
		return err
	}
	defer f.end()
	wait := firstBackoff
	for away := false; ; {
		began := time.Now()
		err := f.connect(ctx)
		e.up.Set(0)
		if ctx.Err() != nil {
			return nil
		}
		f.leaveClaims(fmt.Errorf("%w: %w", ErrAway, err))
		if f.published == nil && f.n.mem.Lineage == "" {
			return err
		}
		if !away || time.Since(began) > time.Minute {
			why := "etcd does not answer"
			if errors.Is(err, errUnsaved) {
				why = "etcd is not followed"
			}
			f.last = step{refused: f.last.refused, problem: fmt.Sprintf("%s; what is known stays in force: %v", why, err)}
			away, wait = true, firstBackoff
			if err := f.tell(); err != nil {
				return err
			}
		}
		timer := time.NewTimer(wait/2 + randomly(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(2*wait, longestBackoff)
	}
}

// randomly gives a duration below d, so that hundred hosts do not come back at one moment.
func randomly(d time.Duration) time.Duration {
	var b [1]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return d * time.Duration(b[0]) / 256
}

// remember reads the state directory.
func (f *follower) remember() error {
	if _, err := f.deps.State.ReadJSON(memoryFile, &f.n.mem); err != nil {
		return err
	}
	if f.n.mem.ID == "" {
		f.n.mem.ID = rand.Text()
		if err := f.save(); err != nil {
			return err
		}
	}
	f.n.fresh = rand.Text
	f.mu.Lock()
	defer f.mu.Unlock()
	f.self.ID = f.n.mem.ID
	f.n.self, f.leaving, f.held, f.away = f.self, nil, nil, nil
	return nil
}

// errUnsaved means that the state directory did not take what is known: a full disk, most often.
var errUnsaved = errors.New("what is known of the cluster could not be written")

func (f *follower) save() error {
	f.unsaved = false
	if err := f.deps.State.WriteJSON(memoryFile, f.n.mem); err != nil {
		return fmt.Errorf("%w: %w", errUnsaved, err)
	}
	return nil
}

// end keeps what is known and closes the connection.
func (f *follower) end() {
	f.leaveClaims(fmt.Errorf("%w: the agent stops", ErrAway))
	f.hangUp()
	if f.unsaved {
		if err := f.save(); err != nil {
			f.deps.Log.Error("the last news of the cluster are lost; they are read again from etcd", "err", err)
		}
	}
}

// connect holds a session until it ends, and says why.
func (f *follower) connect(ctx context.Context) error {
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := requestTimeout
	if f.published == nil && f.n.mem.Lineage != "" {
		patience = time.Second // containers wait for what we know
	}
	session, alive, err := f.grant(ctx, c, patience)
	if err != nil {
		return err
	}
	defer f.revoke(c, session)
	f.n.session = 0
	for {
		if err := f.watch(ctx, c, session, alive); !errors.Is(err, errReadAgain) {
			return err
		}
	}
}

// errReadAgain means that what we have may have a gap.
var errReadAgain = errors.New("read everything again")

// savedEvery bounds how long news of others are kept in memory only.
const savedEvery = 5 * time.Second

// watch reads everything, and follows what changes.
func (f *follower) watch(ctx context.Context, c *clientv3.Client, session clientv3.LeaseID, alive <-chan *clientv3.LeaseKeepAliveResponse) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	drain(f.broken)
	v, err := f.read(ctx, c, f.pass)
	if err != nil {
		return err
	}
	f.view = v
	f.up.Set(1)
	f.hearClaims()
	events := c.Watch(ctx, f.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithRev(v.rev+1))
	late := time.NewTicker(savedEvery)
	defer late.Stop()
	var awaits awaited
	for news := true; ; {
		if news {
			if err := f.decide(ctx, c, session, &awaits); err != nil {
				return err
			}
		}
		news = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r, ok := <-events:
			if err := r.Err(); err != nil || !ok {
				f.deps.Log.Debug("watch ended", "err", err)
				return errReadAgain // compacted, or its member has no leader
			}
			if clusterID(r.Header.ClusterId) != v.cluster {
				return errReadAgain
			}
			f.take(r.Events)
			awaits.news, news = true, true
		case r, ok := <-alive:
			f.requests.Inc()
			if !ok {
				return errors.New("session with etcd ended")
			}
			if r.ResponseHeader != nil && (clusterID(r.ClusterId) != v.cluster || r.Revision < v.rev) {
				return errReadAgain // a member that lags says so too: the read decides
			}
		case <-f.broken:
			return errReadAgain // a watch that resumes may have missed that a snapshot was restored
		case <-f.changed:
			news = true
		case <-f.gather.C:
			if err := f.tell(); err != nil {
				return err
			}
		case <-late.C:
			if awaits.stale() {
				return errReadAgain
			}
			if f.unsaved {
				if err := f.save(); err != nil {
					return err
				}
			}
		}
	}
}

// awaited is what must come by the watch before the next write is decided.
type awaited struct {
	rev  int64 // of our last write
	lost bool  // it was refused: somebody has changed something
	news bool  // since then something came
	old  bool  // it is for a while that nothing came
}

// stale tells, the second time that it is asked, that nothing came.
func (a *awaited) stale() bool {
	if !a.lost || a.news {
		a.old = false
		return false
	}
	was := a.old
	a.old = true
	return was
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// take enters what changed.
func (f *follower) take(events []*clientv3.Event) {
	for _, ev := range events {
		key := string(ev.Kv.Key)[len(f.cfg.Prefix):]
		if ev.Type == clientv3.EventTypeDelete {
			f.view.remove(key, ev.Kv.ModRevision)
		} else if err := f.view.put(key, ev.Kv.Value, ev.Kv.CreateRevision, ev.Kv.ModRevision); err != nil {
			f.pass(key, ev.Kv.ModRevision, err)
		}
	}
}

// pass tells, once, that a record is passed over.
func (f *follower) pass(key string, rev int64, err error) {
	if f.told[key] != rev {
		f.told[key] = rev
		f.deps.Log.Error("a record in etcd is passed over; the rest is used", "key", f.cfg.Prefix+key, "err", err)
	}
}

// decide learns what there is to learn, makes at most one write, and publishes when there is nothing left to write.
func (f *follower) decide(ctx context.Context, c *clientv3.Client, session clientv3.LeaseID, awaits *awaited) error {
	f.mu.Lock()
	f.n.wants, f.n.leaving, f.n.claims = f.wants, f.leaving != nil, f.asked()
	f.mu.Unlock()
	if err := f.learn(); err != nil {
		return err
	}
	if f.view.rev < awaits.rev || awaits.lost && !awaits.news {
		return nil
	}
	f.last = f.n.next(f.view)
	if done := f.last.txn == nil; len(f.last.answers) > 0 || done && (f.published == nil || len(f.n.claims) > 0) {
		if err := f.tellClaims(); done || err != nil {
			return err
		}
	} else if done {
		f.gather.Reset(gatherFor)
		return nil
	}
	if ok, err := f.withdraw(f.last.gives); !ok || err != nil {
		poke(f.changed)
		return err
	}
	f.gather.Stop() // told when it is done
	r, err := f.commit(ctx, c, f.last.txn, session)
	if err != nil {
		return err
	}
	f.deps.Log.Debug("wrote to etcd", "what", f.last.txn.Why, "taken", r.Succeeded, "revision", r.Header.Revision)
	*awaits = awaited{lost: !r.Succeeded}
	if r.Succeeded {
		awaits.rev = r.Header.Revision
		f.note(f.last.txn, r.Header.Revision)
	}
	return nil
}

// note takes from a write of ours what is not learnt by the watch.
func (f *follower) note(t *Txn, rev int64) {
	for _, w := range t.Then {
		switch w.Key {
		case epochKey:
			f.deps.Log.Warn("the store's epoch was raised; no new block is leased for one grace period", "what", t.Why, "grace", f.cfg.Grace)
		case liveDir + f.n.self.Name:
			if w.Value != nil {
				f.n.session = rev
			}
		}
	}
}

// learn takes over what the view teaches; promises are written before anybody hears of them.
func (f *follower) learn() error {
	if f.n.mem.restored(f.view) != "" {
		return nil
	}
	promise := f.n.mem.learn(f.view, f.n.self.Name)
	promise = f.n.settle(f.view) || promise
	f.unsaved = true
	if promise {
		return f.save()
	}
	return nil
}

// tell publishes what is known, when it differs from what was published last.
func (f *follower) tell() error {
	c := f.n.clusterOf(f.isLive, f.last)
	if f.last.problem != f.problem {
		switch f.problem = f.last.problem; {
		case f.last.refused:
			f.deps.Log.Error("this host is refused", "err", f.problem)
		case f.problem != "":
			f.deps.Log.Warn("this host does not hold what it should", "err", f.problem)
		default:
			f.deps.Log.Info("this host holds what it should")
		}
	}
	f.mu.Lock()
	if f.leaving != nil && f.n.leaving && f.view != nil {
		f.leaving.told(f.last)
		if f.last.refused {
			f.leaving = nil
		}
	}
	f.known, f.held = maps.Clone(f.n.mem.Leases), slices.Clone(c.Self.Blocks)
	f.mu.Unlock()
	if f.published != nil && reflect.DeepEqual(c, *f.published) {
		return nil
	}
	if f.unsaved { // a restart without etcd is not to know less than the kernel has
		if err := f.save(); err != nil {
			return err
		}
	}
	f.published = &c
	f.publish(c)
	return nil
}

func (f *follower) isLive(name string) bool {
	return f.view == nil || f.view.mod(liveDir+name) != 0
}

func clusterID(id uint64) string { return fmt.Sprintf("%016x", id) }
