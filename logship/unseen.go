package logship

import (
	"time"

	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// lives tells how many generations of a container's log came and went between two looks. A runtime that keeps one file
// either empties it (old Docker with max-file=1: close, open with O_TRUNC) or puts another in its place (newer Docker, 20.10.24
// too: close, unlink, create; conmon: rename over it). The kernel tells of each of these, in order; what was seen is fewer.
//
// Looks run ahead of what the kernel tells: a surplus of seen generations waits for its events. A surplus of events that
// no new generation explains is a program that only opened its log again, as docker does when a container is restarted.
type lives struct {
	full    int64 // bytes that the writer fills before it begins anew; 0: not known
	empties bool  // the writer keeps one file, so that a close may be the end of what is in it
	renews  bool  // ... but makes a new one then

	surplus int       // lives that events told of and nobody saw; below 0: seen, and not told of yet
	newest  int64     // the last generation that was seen
	fresh   bool      // a file was made and nothing written to it yet
	written bool      // something was; a log without a line is not emptied
	closed  bool      // the writer has closed it
	begun   time.Time // what was before this is not told
}

// event takes in what the kernel tells of the log's name.
func (l *lives) event(e tail.Event) {
	switch {
	case e.Made:
		if !l.fresh { // else the one before never had a line
			l.surplus++
		}
		l.fresh, l.closed, l.renews = true, false, l.renews || l.written
	case e.Closed:
		l.closed = l.empties && !l.renews && l.written
	case e.Written:
		if l.closed { // emptying it is a change too
			l.surplus++
		}
		l.fresh, l.closed, l.written = false, false, true
	}
}

// count is called after the look that follows a batch of events, with the newest generation and since when something is
// known of it. What happened before told was told in earlier batches, what happened before at in this one. It gives how
// many generations nobody saw.
func (l *lives) count(newest int64, since, told, at time.Time) (unseen int) {
	l.surplus -= int(newest - l.newest)
	l.newest = newest
	switch {
	case l.surplus > 0:
		if since.After(told) && since.After(l.begun) {
			unseen = l.surplus
		}
		l.surplus = 0
	case since.Before(at): // its event would have been told
		l.surplus = 0
	}
	return unseen
}

// overflowed forgets what may be missing among the events: then it is not known.
func (l *lives) overflowed() {
	l.surplus, l.fresh, l.closed = min(l.surplus, 0), false, false
}

// counted tells whether the generations of a stream are counted: those that a runtime makes. Other programs do what they
// like with their files.
func (l *Logship) counted(s *stream) bool {
	return s.owner != (owner{}) && !s.isFile() && !s.spooled
}

// unseen owns up to generations that nobody saw.
func (f *follower) unseen(s *stream, at time.Time) {
	if s.lives == nil {
		return
	}
	newest, since, settled := s.series.Newest()
	if !settled {
		return // some may be on their way to be seen
	}
	n := s.lives.count(newest, since, f.until, at)
	if n == 0 {
		return
	}
	if !s.missed {
		s.missed = true
		f.log.Warn("a generation of a log came and went between two looks; each is counted, and said once", "stream", s.key, "path", s.src.Path)
	}
	for c := range s.readers() {
		c.loseWhole(n)
		c.lose(int64(n) * max(1, s.lives.full))
	}
}

// writer says how the program behind a log begins it anew.
func (f *follower) writer(s *stream, src ledger.Source) {
	if !f.l.counted(s) {
		return
	}
	if s.lives == nil {
		newest, _, _ := s.series.Newest()
		g := s.series.Last()
		s.lives = &lives{newest: newest, begun: time.Now(), written: g != nil && g.Seen() > 0}
	}
	s.lives.full, s.lives.empties = src.Full, src.Empties
	if src.Empties {
		s.series.Full(src.Full)
	}
}
