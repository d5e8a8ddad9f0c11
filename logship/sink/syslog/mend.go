package syslog

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// mender sends the kept window again when the connection is reset while nobody delivers: without it a container's last
// lines would wait for the next line of any.
type mender struct {
	turn     chan struct{} // held by whoever uses the connection: a Deliver, or the mending
	ctx      context.Context
	stop     context.CancelFunc
	watching sync.WaitGroup
	owed     int // records sent again, to be told with the next receipt
}

func newMender() *mender {
	m := &mender{turn: make(chan struct{}, 1)}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// lock answers false when ctx ended first.
func (m *mender) lock(ctx context.Context) bool {
	select {
	case m.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *mender) unlock() { <-m.turn }

// watch waits for the end of a new connection, and mends what that end made doubtful.
func (s *Sink) watch(c *connection) {
	s.mender.watching.Go(func() {
		<-c.gone
		if !s.mender.lock(s.mender.ctx) {
			return
		}
		defer s.mender.unlock()
		if s.conn == c { // nobody has noticed yet
			_ = s.lost(c.why)
			s.mend()
		}
	})
}

// mend repeats until the window is sent, somebody else has sent it, or the sink is closed. The caller holds the turn.
func (s *Sink) mend() {
	for try := 0; s.conn == nil && s.resend && s.mender.ctx.Err() == nil; try++ {
		resent, err := s.connect(s.mender.ctx)
		s.mender.owed += resent
		if err == nil {
			return
		}
		s.mender.unlock()
		pause := min(50*time.Millisecond<<min(try, 7), 5*time.Second)
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-s.mender.ctx.Done():
		}
		s.mender.lock(context.Background())
	}
}
