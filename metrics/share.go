package metrics

import (
	"context"
	"errors"
	"sync"
)

// share lets requests that come at once have one scrape in common. A request that comes while a scrape is under way
// waits for the next one, together with all who come until that begins: so nobody is given a value that was read
// before they asked, and however many ask, no more than two scrapes stand between a question and its answer.
type share struct {
	do   func(want flavour) *answer
	turn chan struct{} // holds a token while no scrape runs

	mu   sync.Mutex
	next *round // the one not yet begun; nil when nobody waits for it
}

// round is one scrape and those who wait for it.
type round struct {
	want   flavour // guarded by share.mu until the round begins
	users  int     // guarded by share.mu
	done   chan struct{}
	answer *answer
}

func newShare(do func(flavour) *answer) *share {
	s := &share{do: do, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// get gives the answer of a scrape that begins after the call. It blocks until that is done or ctx ends. The caller
// must not use the answer after it called release.
func (s *share) get(ctx context.Context, want flavour) (a *answer, release func(), err error) {
	s.mu.Lock()
	r := s.next
	leads := r == nil
	if leads {
		r = &round{done: make(chan struct{})}
		s.next = r
	}
	r.want |= want
	r.users++
	s.mu.Unlock()
	release = func() { s.leave(r) }

	if leads {
		s.lead(r)
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		release()
		return nil, nil, context.Cause(ctx)
	}
	if r.answer == nil {
		release()
		return nil, nil, errors.New("share a scrape: the one who did it panicked")
	}
	return r.answer, release, nil
}

// lead does the round's scrape when its turn comes. It does not heed the leader's own context, because others wait for
// it too; both waits are bounded by the time budget of a scrape.
func (s *share) lead(r *round) {
	<-s.turn
	defer func() { s.turn <- struct{}{}; close(r.done) }()
	s.mu.Lock()
	s.next = nil
	want := r.want
	s.mu.Unlock()
	r.answer = s.do(want)
}

// leave gives the answer's memory back with the last of its users.
func (s *share) leave(r *round) {
	s.mu.Lock()
	r.users--
	last := r.users == 0
	s.mu.Unlock()
	if last && r.answer != nil {
		r.answer.recycle()
	}
}
