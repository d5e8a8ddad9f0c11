//go:build kernel

package metrics

import (
	"context"
	"sync"
	"testing"
	"time"
)

// patience is how long the inventory waits for a runtime's answer before it calls it silent.
const patience = 2 * time.Second

// silences are the times in which a runtime was asked and did not answer. Of a container that came and went in one nobody
// has told, so nobody can count it. A real machine has none; an emulated one that others slow down has.
type silences struct {
	mu    sync.Mutex
	heard time.Time // the runtime answered, and
	since time.Time // had answered since
	past  [][2]time.Time
}

// listen follows the inventory until the test ends.
func listen(ctx context.Context, t *testing.T, from Inventory) *silences {
	s := &silences{heard: time.Now()}
	var follow sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(func() { cancel(); follow.Wait() })
	follow.Go(func() {
		for snap := range from.Follow(ctx) {
			for _, r := range snap.Runtimes {
				if r.Answered {
					s.answered(snap.At, r.Since)
				}
			}
		}
	})
	return s
}

func (s *silences) answered(at, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() && !since.Equal(s.since) {
		s.past = append(s.past, [2]time.Time{s.heard.Add(-patience), since})
	}
	s.heard, s.since = at, since
}

// during tells whether one of them overlaps what was between two moments.
func (s *silences) during(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.past {
		if p[0].Before(to) && from.Before(p[1]) {
			return true
		}
	}
	return false
}
