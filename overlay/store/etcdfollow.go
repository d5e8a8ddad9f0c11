package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

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
	reached   bool        // everything was read by this connection
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
		f.reached = false
		err := f.connect(ctx)
		e.up.Set(0)
		if ctx.Err() != nil {
			return nil
		}
		f.leaveClaims(fmt.Errorf("%w: %w", ErrAway, err))
		if f.published == nil && f.n.mem.Lineage == "" {
			return err
		}
		if !away || f.reached {
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
	f.view, f.reached = v, true
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
