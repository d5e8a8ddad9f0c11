package logship

import (
	"slices"

	"github.com/fairlead-dev/fairlead/logship/ledger"
)

// remember saves which generations were seen of logs that a sink is behind with, so that what is destroyed while no
// agent runs is counted. Those of one generation are looked at with all only: every ten seconds, and at the end.
func (f *follower) remember(all bool) {
	news := map[string][]ledger.Seen{}
	for key, s := range f.streams {
		if !all && len(s.seen) == 0 && s.series.Generations() < 2 {
			continue
		}
		now := s.unacknowledged()
		same := func(a, b ledger.Seen) bool { return a.Gen == b.Gen && a.Cut == b.Cut && (!all || a.Seen == b.Seen) }
		if !slices.EqualFunc(now, s.seen, same) {
			s.seen, news[key] = now, now
		}
	}
	if len(news) == 0 {
		return
	}
	if err := f.book.Remember(news); err != nil {
		f.log.Warn("what is behind could not be saved", "err", err)
	}
}

// unacknowledged gives what was seen from the oldest generation on that a sink needs; nothing when all have all.
func (s *stream) unacknowledged() []ledger.Seen {
	now, behind, last := []ledger.Seen{}, false, s.series.Last()
	for c := range s.readers() {
		behind = behind || last != nil && c.sink.acked(c).end.Gen < last.Seq || c.lag() > 0
	}
	if !behind {
		return now
	}
	oldest := s.behind()
	for _, g := range s.series.Kept() {
		if g.Seq < oldest {
			continue
		}
		same := func(o ledger.Seen) bool { return o.Gen == g.Seq && o.Seen == g.Seen() && o.Cut == g.Cut() }
		if i := slices.IndexFunc(s.seen, same); i >= 0 {
			now = append(now, s.seen[i])
			continue
		}
		now = append(now, ledger.Seen{Place: g.All(), Gen: g.Seq, Cut: g.Cut()})
	}
	return now
}

// countOn numbers generations after those of earlier runs.
func (s *stream) countOn(saved []ledger.Position) {
	last := int64(0)
	for _, p := range saved {
		last = max(last, p.Gen)
	}
	for _, g := range s.seen {
		last = max(last, g.Gen)
	}
	s.series.After(last)
}
