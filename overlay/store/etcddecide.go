package store

import (
	"context"
	"maps"
	"reflect"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
)

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
