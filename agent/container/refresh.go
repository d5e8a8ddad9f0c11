package container

import (
	"context"
	"time"
)

// refreshWithin bounds how long Refresh waits for a runtime that has answered so far.
const refreshWithin = 5 * time.Second

// Refresh asks every runtime for its complete list now and gives the snapshot that has the answers. A runtime that does
// not answer within five seconds, or that is known not to answer, is in it as it was: see RuntimeState.Asked.
func (v *Inventory) Refresh(ctx context.Context) *Snapshot {
	ctx, cancel := context.WithTimeout(ctx, refreshWithin)
	defer cancel()
	began := time.Now()
	v.mu.Lock()
	for _, ask := range v.relist {
		ask()
	}
	v.mu.Unlock()
	for s := range v.Follow(ctx) {
		waiting := false
		for _, r := range s.Runtimes {
			waiting = waiting || r.Answered && r.Asked.Before(began)
		}
		if !waiting {
			return s
		}
	}
	return v.Snapshot()
}

// relistBy lets Refresh ask a runtime by ask while a session with it lasts.
func (v *Inventory) relistBy(r Runtime, ask func()) (end func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.relist[r] = ask
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.relist, r)
	}
}
