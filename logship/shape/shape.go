// Package shape changes lines on their way to a sink, as rules of the configuration and labels of containers say:
//
//	line ─ join (multiline) ─ parse into fields ─ time ─ keep, drop ─ sample ─ budget ─ redact ─> record
//
// It is pure: lines and times in, records out. It owns nothing, starts nothing and reads no clock. A Chain is compiled
// once for each log and never modified; a State is what one reader of that log carries from line to line. After a crash
// the reader begins again at Held, so no line of an unfinished record is forgotten; budgets and samples begin anew.
package shape

import (
	"math"
	"regexp"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// Chain is all that is to be done with the lines of one log. It is never modified.
type Chain struct {
	join    *join
	parse   parser
	message string
	stamp   *stamp
	filters []filter
	sample  int
	budget  *budget
	redacts []redact
	sinks   []string
}

// filter keeps or drops by the line or one of its fields.
type filter struct {
	keep  bool
	field string // empty: the line
	match *regexp.Regexp
}

type redact struct {
	match *regexp.Regexp
	with  []byte
}

// Sinks gives the names of the sinks that the log goes to; nil is all.
func (c *Chain) Sinks() []string {
	if c == nil {
		return nil
	}
	return c.sinks
}

// Plain tells whether the chain leaves every line as it is, so that no State is needed.
func (c *Chain) Plain() bool {
	return c == nil || c.join == nil && c.parse == nil && len(c.filters) == 0 && c.sample <= 1 && c.budget == nil && len(c.redacts) == 0
}

// Reason says why a record is not delivered.
type Reason uint8

// The reasons.
const (
	Kept     Reason = iota // it is delivered
	Filtered               // a drop rule matched, or no keep rule did
	Sampled                // not the one of N
	Over                   // beyond the budget
)

func (r Reason) String() string { return [...]string{"kept", "rule", "sample", "budget"}[r] }

// Out is one record that a chain has decided on.
type Out struct {
	decode.Line
	Fields []sink.Field
	// From is where its first raw line began, End where its last one ended. Both are zero for a Summary.
	From, End decode.Mark
	Dropped   Reason
	Summary   bool // not a line of the log: how many were dropped by sample and budget
}

// Counts is what a State has done, each record once.
type Counts struct {
	Joined    uint64 // lines that were appended to the one before
	Cut       uint64 // records that reached the bounds of multiline and were cut there
	Parsed    uint64 // records whose line gave fields
	Unparsed  uint64 // records whose line was not of the form that the rule names; delivered as they are
	Untimed   uint64 // records whose time field was absent or no time
	Filtered  uint64
	Sampled   uint64
	Over      uint64
	Redacted  uint64 // records in which something was replaced
	Summaries uint64
}

// Minus gives the difference of two counts.
func (c Counts) Minus(o Counts) Counts {
	return Counts{c.Joined - o.Joined, c.Cut - o.Cut, c.Parsed - o.Parsed, c.Unparsed - o.Unparsed, c.Untimed - o.Untimed,
		c.Filtered - o.Filtered, c.Sampled - o.Sampled, c.Over - o.Over, c.Redacted - o.Redacted, c.Summaries - o.Summaries}
}

// State is one reader's way through one log. It is not safe for concurrent use.
type State struct {
	Counts
	chain *Chain
	held  [3]group // by Std: stdout and stderr may be written in turns
	nth   int      // since the last sampled record
	spent int64    // when the budget is whole again, in the time of the records
	last  int64    // the newest record's time
	tally tally
	out   []Out
}

// New begins a way through a log.
func (c *Chain) New() *State { return &State{chain: c} }

// Push takes the next line, whose raw line lay from..end; now is the reader's clock in nanoseconds. What it gives is
// valid until the next call, texts alias the line or arena. All but a last one that is the line itself were finished by
// the line, not by its end.
func (s *State) Push(l decode.Line, from, end decode.Mark, now int64, arena *decode.Arena) []Out {
	s.out = s.out[:0]
	if s.chain.join == nil {
		s.emit(Out{Line: l, From: from, End: end}, now, arena)
		return s.out
	}
	g := &s.held[l.Std]
	if g.open && !s.chain.join.belongs(g, l.Text) {
		s.release(g, now, arena)
	}
	if g.open && !s.chain.join.fits(g, l.Text) {
		s.Cut++
		phase := g.phase
		s.release(g, now, arena)
		g.begin(l, from, end, now) // the rest is joined too
		g.phase = phase
		return s.out
	}
	switch {
	case g.open:
		g.add(l.Text, end, now)
		s.Joined++
	case s.chain.join.starts(l.Text):
		g.begin(l, from, end, now)
	default:
		s.emit(Out{Line: l, From: from, End: end}, now, arena)
	}
	return s.out
}

// Pass shapes one line that no other is joined to.
func (s *State) Pass(l decode.Line, from, end decode.Mark, now int64, arena *decode.Arena) []Out {
	s.out = s.out[:0]
	s.emit(Out{Line: l, From: from, End: end}, now, arena)
	return s.out
}

// Tick gives what is due by now: the summary of what was dropped and, when idle tells that no more lines are to be had,
// records that nothing was added to for their timeout.
func (s *State) Tick(now int64, idle bool, arena *decode.Arena) []Out {
	s.out = s.out[:0]
	for i := range s.held {
		if g := &s.held[i]; idle && g.open && now-g.touched >= int64(s.chain.join.timeout) {
			s.release(g, now, arena)
		}
	}
	s.due(now, false)
	return s.out
}

// Flush gives everything that is held and the summary, because nothing will follow.
func (s *State) Flush(now int64, arena *decode.Arena) []Out {
	s.out = s.out[:0]
	for i := range s.held {
		if g := &s.held[i]; g.open {
			s.release(g, now, arena)
		}
	}
	s.due(now, true)
	return s.out
}

// Summary gives the summary of what was dropped since the last one, if anything was.
func (s *State) Summary(now int64) []Out {
	s.out = s.out[:0]
	s.due(now, true)
	return s.out
}

// Due tells when Tick will have something to give if no line comes; ok is false when it never will.
func (s *State) Due() (at int64, ok bool) {
	at = math.MaxInt64
	for i := range s.held {
		if g := &s.held[i]; g.open {
			at = min(at, g.touched+int64(s.chain.join.timeout))
		}
	}
	if s.tally.any() {
		at = min(at, s.tally.since+int64(summaryEvery))
	}
	return at, at != math.MaxInt64
}

// Held gives the beginning of the oldest record that is not finished; ok is false when there is none.
func (s *State) Held() (from decode.Mark, ok bool) {
	from = decode.Mark{Gen: math.MaxInt64, Off: math.MaxInt64}
	for i := range s.held {
		if g := &s.held[i]; g.open && g.from.Before(from) {
			from, ok = g.from, true
		}
	}
	return from, ok
}

// Dropped tells whether a summary is owed.
func (s *State) Dropped() bool { return s.tally.any() }

// release finishes a joined record.
func (s *State) release(g *group, now int64, arena *decode.Arena) {
	o := Out{Line: decode.Line{At: g.at, Std: g.std, Text: arena.Copy(g.text), Malformed: g.malformed}, From: g.from, End: g.end}
	g.close()
	s.emit(o, now, arena)
}

// emit does with a whole record what comes after joining.
func (s *State) emit(o Out, now int64, arena *decode.Arena) {
	c := s.chain
	if c.parse != nil {
		s.fields(&o, arena)
	}
	if o.Dropped = s.judge(&o, now); o.Dropped == Kept && len(c.redacts) > 0 {
		s.redact(&o)
	}
	s.out = append(s.out, o)
}

// fields parses the line, takes the message and the time out of its fields.
func (s *State) fields(o *Out, arena *decode.Arena) {
	fields, ok := s.chain.parse(o.Text, arena)
	if !ok {
		s.Unparsed++
		if s.chain.stamp != nil {
			s.Untimed++
		}
		return
	}
	s.Parsed++
	o.Fields = fields
	if st := s.chain.stamp; st != nil {
		v, _ := take(&o.Fields, st.field)
		if at, ok := st.read(v); ok {
			o.At = at
		} else {
			s.Untimed++
			if v != "" {
				o.Fields = append(o.Fields, sink.Field{Name: st.field, Value: v})
			}
		}
	}
	if name := s.chain.message; name != "" {
		if v, ok := take(&o.Fields, name); ok {
			o.Text = []byte(v)
		}
	}
}

// take removes a field and gives its value.
func take(fields *[]sink.Field, name string) (string, bool) {
	for i, f := range *fields {
		if f.Name == name {
			*fields = append((*fields)[:i:i], (*fields)[i+1:]...)
			return f.Value, true
		}
	}
	return "", false
}

// judge decides whether the record is delivered.
func (s *State) judge(o *Out, now int64) Reason {
	keeps, kept := false, false
	for i := range s.chain.filters {
		f := &s.chain.filters[i]
		switch hit := f.hits(o); {
		case !f.keep && hit:
			s.Filtered++
			return Filtered
		case f.keep:
			keeps, kept = true, kept || hit
		}
	}
	if keeps && !kept {
		s.Filtered++
		return Filtered
	}
	if n := s.chain.sample; n > 1 {
		s.nth++
		if s.nth%n != 1 {
			s.Sampled++
			s.tally.add(Sampled, o.At, now)
			return Sampled
		}
	}
	if b := s.chain.budget; b != nil && !s.spend(b, o.At, now) {
		s.Over++
		s.tally.add(Over, o.At, now)
		return Over
	}
	return Kept
}

func (f *filter) hits(o *Out) bool {
	if f.field == "" {
		return f.match.Match(o.Text)
	}
	for _, have := range o.Fields {
		if have.Name == f.field {
			return f.match.MatchString(have.Value)
		}
	}
	return false
}

// redact replaces in the line and in every field's value.
func (s *State) redact(o *Out) {
	changed := false
	for i := range s.chain.redacts {
		r := &s.chain.redacts[i]
		if r.match.Match(o.Text) {
			o.Text, changed = r.match.ReplaceAll(o.Text, r.with), true
		}
		for j := range o.Fields {
			if f := &o.Fields[j]; r.match.MatchString(f.Value) {
				f.Value, changed = r.match.ReplaceAllString(f.Value, string(r.with)), true
			}
		}
	}
	if changed {
		s.Redacted++
	}
}

// summaryEvery is the least time from the first record dropped to the summary that tells of it.
const summaryEvery = time.Minute

// To gives the same chain for other sinks; none is all.
func (c *Chain) To(sinks []string) *Chain {
	out := *c
	if out.sinks = sinks; len(sinks) == 0 {
		out.sinks = nil
	}
	return &out
}
