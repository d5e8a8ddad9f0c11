package cni

import (
	"sync"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// turns lets one request at a time speak of a container's interface.
type turns struct {
	mu   sync.Mutex
	last map[plan.Key]chan struct{} // closed when the last one who came has ended
}

// take blocks until those who came before have ended, and gives the function that ends this turn. Each request is
// bounded, so the wait is. Requests that speak of no interface wait for nobody.
func (t *turns) take(key plan.Key) (end func()) {
	if key == (plan.Key{}) {
		return func() {}
	}
	mine := make(chan struct{})
	t.mu.Lock()
	if t.last == nil {
		t.last = map[plan.Key]chan struct{}{}
	}
	before := t.last[key]
	t.last[key] = mine
	t.mu.Unlock()
	if before != nil {
		<-before
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.last[key] == mine {
			delete(t.last, key)
		}
		close(mine)
	}
}
