package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// pending is a claim that waits for its answer.
type pending struct {
	Claim
	answer chan error // of capacity one
}

// Claim makes an address this host's; see Shared.
func (e *Etcd) Claim(ctx context.Context, c Claim) error {
	p := &pending{c, make(chan error, 1)}
	if waits, err := e.ask(p); !waits {
		return err
	}
	poke(e.changed)
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.claims = slices.DeleteFunc(slices.Clone(e.claims), func(q *pending) bool { return p == q })
	return fmt.Errorf("%w in time: %w", ErrAway, ctx.Err())
}

// ask lets a claim wait, unless it can be answered at once.
func (e *Etcd) ask(p *pending) (waits bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case slices.Contains(e.held, p.block()):
		return false, nil
	case e.away != nil:
		return false, e.away
	}
	e.claims = append(e.claims, p)
	return true, nil
}

// asked gives the claims that wait. The store is locked.
func (e *Etcd) asked() (list []Claim) {
	for _, p := range e.claims {
		if !slices.Contains(list, p.Claim) {
			list = append(list, p.Claim)
		}
	}
	return list
}

// hearClaims lets claims wait from now on.
func (e *Etcd) hearClaims() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away = nil
}

// leaveClaims answers all claims, and those to come, with err.
func (e *Etcd) leaveClaims(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away = err
	for _, p := range e.claims {
		p.answer <- err
	}
	e.claims = nil
}

// tellClaims tells the cluster, and then those who claim what came of it. Claims that were not looked at wait when there is
// a write before them; else they are told why this host has nothing.
func (f *follower) tellClaims() error {
	if f.last.txn != nil {
		f.last.problem = f.problem // it is not known yet whether that is over
	}
	if err := f.tell(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims = slices.DeleteFunc(f.claims, func(p *pending) bool {
		if !slices.Contains(f.n.claims, p.Claim) {
			return false // it came meanwhile
		}
		err, looked := f.last.answers[p.Claim]
		if !looked && f.last.txn != nil {
			return false
		}
		if !looked {
			err = errors.New(f.last.problem)
		}
		p.answer <- err
		return true
	})
	return nil
}

// withdraw makes what is to be given back not ours, before the store hears of it. It refuses when something of it is
// wanted again.
func (f *follower) withdraw(keys []string) (ok bool, err error) {
	if len(keys) == 0 {
		return true, nil
	}
	f.mu.Lock()
	var blocks []netip.Prefix
	for _, key := range keys {
		b := f.n.mem.Leases[key].Block
		if slices.Contains(f.wants.Fixed, b.Addr()) {
			f.mu.Unlock()
			return false, nil
		}
		blocks = append(blocks, b)
	}
	f.held = slices.DeleteFunc(f.held, func(b netip.Prefix) bool { return slices.Contains(blocks, b) })
	f.mu.Unlock()
	f.n.giving(keys)
	return true, f.save()
}
