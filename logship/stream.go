package logship

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// stream is one sequence of lines: a container's output, or one path and its generations. It belongs to the follower;
// cursors are the shippers'.
type stream struct {
	key    string
	src    ledger.Source
	origin atomic.Pointer[sink.Origin] // src.Origin, or what is known better by now
	owner  owner
	series *tail.Series
	// ended: nobody writes any more; cursors read to the end and finish.
	ended   atomic.Bool
	cursors []*cursor // one a sink, in the order of the configuration
	dir     string    // watched
	rescues int       // of the series, whose positions are saved
	nudge   func()
	spooled bool                        // the file is our own copy of what its source gives
	summed  ledger.Sum                  // of what sinks have; the follower's
	sumSeq  int64                       // the generation that is summed
	blocks  *blockSums                  // of its file
	seen    []ledger.Seen               // as it is saved; the follower's
	chain   atomic.Pointer[shape.Chain] // what rules and labels make of its lines; nil: nothing
	lives   *lives                      // nil: generations that nobody saw are not counted
	missed  bool                        // one was, and it was said
	scolded bool                        // its labels were complained of
}

// owner is the container whose removal ends a stream; zero for a file of the host.
type owner struct {
	Runtime container.Runtime
	ID      container.ID
}

// isFile tells a file that a program writes itself from a container's output, which its runtime writes, and from spools.
func (s *stream) isFile() bool { return s.src.Origin.Path != "" && !s.spooled }

// wake has every sink look at the stream.
func (s *stream) wake() {
	for _, c := range s.cursors {
		c.sink.wake(c)
	}
}

// finished tells whether every sink has everything.
func (s *stream) finished() bool {
	for c := range s.readers() {
		if !c.finished.Load() {
			return false
		}
	}
	return true
}

// behind gives the oldest generation that an acknowledged place still needs.
func (s *stream) behind() int64 {
	oldest := int64(-1)
	for c := range s.readers() {
		if at := c.sink.acked(c); oldest < 0 || at.from.Gen < oldest {
			oldest = at.from.Gen
		}
	}
	return oldest
}

// mirrorLag is how far a sink may be behind before that counts as an outage.
const mirrorLag = 1 << 20

// unread gives from where on the current generation is still needed; behind is false when the sinks keep up.
func (s *stream) unread() (from int64, behind bool) {
	g := s.series.Last()
	if g == nil {
		return 0, false
	}
	from = g.Seen()
	for c := range s.readers() {
		at := c.sink.acked(c)
		if at.from.Gen < g.Seq {
			at.from.Off = 0
		}
		from = min(from, at.from.Off)
		behind = behind || c.lag() > mirrorLag || !c.sink.up.Load() && c.lag() > 0
	}
	return from, behind
}

// release lets go of generations before seq that every sink has acknowledged and nobody writes to any more, and counts
// what was added to them after that.
func (s *stream) release(seq int64) {
	done := func(g *tail.Generation) bool {
		return g.Seq < seq && !slices.ContainsFunc(s.cursors, func(c *cursor) bool { return c.trails(g) })
	}
	if late := s.series.Release(done); late > 0 {
		for c := range s.readers() {
			c.lose(late)
		}
	}
}

// position makes a mark provable, for the ledger.
func (s *stream) position(p place) (ledger.Position, bool) {
	end, ok := s.place(p.end)
	if !ok {
		return ledger.Position{}, false
	}
	out := ledger.Position{Place: end, Gen: p.end.Gen}
	if p.from.Before(p.end) {
		if from, ok := s.place(p.from); ok {
			out.From = &from
		}
	}
	if p.left != nil {
		for _, l := range *p.left {
			if l.seq < p.end.Gen {
				out.Left = append(out.Left, l.place)
			}
		}
	}
	return out, true
}

func (s *stream) place(m decode.Mark) (tail.Place, bool) {
	if s.series == nil { // lines that are sent again move no position
		return tail.Place{}, false
	}
	g := s.series.Get(m.Gen)
	if g == nil {
		return tail.Place{}, false
	}
	return tail.Place{Identity: g.Identity(), Proof: g.Proof(m.Off), Offset: m.Off, Seen: g.Seen()}, true
}

// gone tells whether a path that no longer exists has been away for so long that no rotation explains it, and nobody
// writes to the file that was there.
func (s *stream) gone(now time.Time) bool {
	if s.series.Absent(now) <= time.Minute {
		return false
	}
	last := s.series.Last()
	return last == nil || !last.Busy()
}
