package logship

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// shaper is what a cursor needs to shape its lines; it belongs to the shipper's reader. Without a rule for the log it
// is two words that nobody looks at for each line.
type shaper struct {
	chain   *shape.Chain
	state   *shape.State // nil: every line goes as it is
	counted shape.Counts // of state, added to the sink's totals already
	unpaid  int          // bytes of raw lines whose record is not in a batch yet
	alarm   atomic.Bool  // a wake-up for what the state holds is on its way
}

// shaped are the totals of one sink.
type shaped struct {
	joined, cut, parsed, unparsed, untimed, filtered, sampled, over, redacted, summaries atomic.Uint64
}

func (t *shaped) add(c shape.Counts) {
	t.joined.Add(c.Joined)
	t.cut.Add(c.Cut)
	t.parsed.Add(c.Parsed)
	t.unparsed.Add(c.Unparsed)
	t.untimed.Add(c.Untimed)
	t.filtered.Add(c.Filtered)
	t.sampled.Add(c.Sampled)
	t.over.Add(c.Over)
	t.redacted.Add(c.Redacted)
	t.summaries.Add(c.Summaries)
}

// reshape takes over what rules and labels say of the stream now; what the former rule held comes out as it is.
func (c *cursor) reshape(b *batch, now int64) {
	chain := c.stream.chain.Load()
	if chain == c.chain {
		return
	}
	if c.state != nil {
		c.give(b, c.state.Flush(now, &b.arena), now)
		c.tell()
	}
	c.chain, c.state, c.counted = chain, nil, shape.Counts{}
	if !chain.Plain() {
		c.state = chain.New()
	}
}

// shape puts what the stream's rules make of a line into the batch. m is the line's mark.
func (c *cursor) shape(b *batch, l decode.Line, start decode.Mark, m mark, at int64) {
	// What a line finishes lies before it, but a line of the other stream may have ended exactly there: one byte
	// further nothing else ends. A plain file has one stream only, and there the beginning itself is the place.
	before := start
	if c.stream.src.Format != container.Plain {
		before.Off++
	}
	if l.Split && m.end == start {
		m.end = before
	}
	c.unpaid += m.bytes
	outs := c.state.Push(l, start, m.end, at, &b.arena)
	for i := range outs {
		o, om := &outs[i], m
		if o.From != start {
			om.end, om.from = before, earlier(om.from, start)
		}
		if om = c.held(om, outs[i+1:]); c.until.Before(om.end) {
			c.put(b, o, om, at)
		}
	}
}

// give puts records into the batch that no line has finished: their time had come. They were never delivered.
func (c *cursor) give(b *batch, outs []shape.Out, at int64) {
	for i := range outs {
		c.put(b, &outs[i], c.held(c.now(), outs[i+1:]), at)
	}
}

// now is the mark of where the cursor stands.
func (c *cursor) now() mark {
	if c.gen == nil {
		return mark{cursor: c, end: c.acked.end, from: c.acked.from}
	}
	return c.here(0)
}

// held moves the place from where a reader begins again back to the oldest record that is not in the batch yet.
func (c *cursor) held(m mark, rest []shape.Out) mark {
	for i := range rest {
		if !rest[i].Summary {
			m.from = earlier(m.from, rest[i].From)
		}
	}
	if from, ok := c.state.Held(); ok {
		m.from = earlier(m.from, from)
	}
	if c.stream.src.Format == container.Plain {
		m.end = earlier(m.end, m.from)
	}
	return m
}

func earlier(a, b decode.Mark) decode.Mark {
	if b.Before(a) {
		return b
	}
	return a
}

func (c *cursor) put(b *batch, o *shape.Out, m mark, at int64) {
	if r := c.replay; r != nil && !r.timed && o.At != 0 && !o.Summary && r.early(o.At) {
		return
	}
	m.bytes, c.unpaid = c.unpaid, 0
	if o.Dropped != shape.Kept {
		c.count.dropped[o.Dropped].Add(1)
		b.skip(m)
		return
	}
	k := sink.Key{}
	if o.At == 0 {
		o.At = at
	} else if !o.Summary {
		k = c.key(mark{end: o.End})
	}
	c.record(b, sink.Record{At: o.At, Std: o.Std, Line: o.Text, Key: k, Fields: o.Fields}, m, o.Malformed, o.Split)
}

// shapeLate shapes a line of an older generation, to which no other is joined.
func (c *cursor) shapeLate(b *batch, l decode.Line, m mark, at int64) {
	c.unpaid += m.bytes
	for _, o := range c.state.Pass(l, decode.Mark{}, decode.Mark{}, at, &b.arena) {
		m.left = c.left.Load()
		c.put(b, &o, c.held(m, nil), at)
	}
}

// after follows each read: idle tells that it found the end of the log for now.
func (c *cursor) after(b *batch, now int64, idle bool) {
	if c.state == nil {
		return
	}
	c.give(b, c.state.Tick(now, idle, &b.arena), now)
	c.tell()
	if due, ok := c.state.Due(); ok && idle && !c.alarm.Swap(true) {
		time.AfterFunc(time.Duration(max(0, due-now)), func() {
			c.alarm.Store(false)
			c.sink.wake(c)
		})
	}
}

// tell adds what was counted since the last time to the totals.
func (c *cursor) tell() {
	d := c.state.Counts.Minus(c.counted)
	c.counted = c.state.Counts
	c.sink.shaped.add(d)
	if c.state.Dropped() {
		c.sink.owing[c] = true
	} else {
		delete(c.sink.owing, c)
	}
}

// summarize puts the summaries that are still owed into the batch, before the agent stops.
func (s *shipper) summarize(b *batch) {
	now := time.Now().UnixNano()
	for c := range s.owing {
		c.give(b, c.state.Summary(now), now)
		c.tell()
	}
}

// skip notes lines that are not delivered: once all records of the batch are, the stream stands behind them.
func (b *batch) skip(m mark) {
	m.left = m.cursor.left.Load()
	if n := len(b.skips); n > 0 && b.skips[n-1].cursor == m.cursor {
		m.bytes += b.skips[n-1].bytes
		b.skips[n-1] = m
		return
	}
	m.cursor.inflight.Add(1)
	b.skips = append(b.skips, m)
}

// passOver settles skipped lines; everything else of their batch is acknowledged.
func (s *shipper) passOver(skips []mark) {
	s.saving.Lock()
	ahead := slices.Clone(skips)
	ahead = slices.DeleteFunc(ahead, func(m mark) bool { // a later line of the same log was delivered
		at := s.acked(m.cursor)
		return m.end.Before(at.end) || m.end == at.end && m.from.Before(at.from)
	})
	if len(ahead) > 0 {
		s.save("", s.positions(ahead))
		s.mu.Lock()
		for i := range ahead {
			ahead[i].cursor.acked = ahead[i].place()
		}
		s.mu.Unlock()
	}
	s.saving.Unlock()
	for i := range skips {
		s.total.ackedBytes.Add(uint64(skips[i].bytes))
		if c := skips[i].cursor; c.inflight.Add(-1) == 0 {
			c.check()
		}
	}
}

// excluded tells whether the stream's lines go to other sinks only. Safe for concurrent use.
func (c *cursor) excluded() bool {
	to := c.stream.chain.Load().Sinks()
	return to != nil && !slices.Contains(to, c.sink.name)
}

// readers gives the cursors of the sinks that the stream goes to.
func (s *stream) readers() iter.Seq[*cursor] {
	return func(yield func(*cursor) bool) {
		for _, c := range s.cursors {
			if !c.excluded() && !yield(c) {
				return
			}
		}
	}
}

// rule finds what is to be done with a stream's lines. What its labels say wrong is said once and left out.
func (f *follower) rule(s *stream, o *sink.Origin) {
	chain, err := f.l.rules.For(o)
	if unknown := slices.DeleteFunc(slices.Clone(chain.Sinks()), f.known); len(unknown) > 0 { // of a label: those of rules are checked
		err = errors.Join(err, fmt.Errorf("label %ssinks: %q is not valid, expected names of sinks", shape.LabelPrefix, strings.Join(unknown, ",")))
		chain = chain.To(slices.DeleteFunc(slices.Clone(chain.Sinks()), func(n string) bool { return !f.known(n) }))
	}
	if err != nil && !s.scolded {
		s.scolded = true
		f.log.Warn("a label of a container is not understood and left out", "container", o.ID, "name", o.Name, "stream", s.key, "err", err)
	}
	s.chain.Store(chain)
}

func (f *follower) known(name string) bool {
	return slices.ContainsFunc(f.shippers, func(s *shipper) bool { return s.name == name })
}

// validateRules names every problem of the rules.
func validateRules(c Config) error {
	var errs []error
	_, err := shape.Compile(c.Rules)
	for _, p := range problems(err) {
		errs = append(errs, fmt.Errorf("logship.rules%w", p))
	}
	for i, r := range c.Rules {
		for j, name := range r.Sinks {
			if !slices.ContainsFunc(c.Sinks, func(s SinkConfig) bool { return s.Name == name }) {
				errs = append(errs, fmt.Errorf("logship.rules[%d].sinks[%d]: %q is not valid, expected the name of one of logship.sinks", i, j, name))
			}
		}
	}
	return errors.Join(errs...)
}

// problems takes joined errors apart.
func problems(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, problems(e)...)
	}
	return out
}

// registerShaping exposes what rules have done, for each sink.
func (l *Logship) registerShaping() {
	if l.deps.Stat == nil || len(l.cfg.Sinks) == 0 {
		return
	}
	for i, c := range l.cfg.Sinks {
		counter := func(name, help string, get func(*shaped) *atomic.Uint64, labels ...stat.Label) {
			l.deps.Stat.Func("fairlead_logship_"+name+"_total", help, stat.TypeCounter, func() float64 {
				l.mu.Lock()
				defer l.mu.Unlock()
				if i >= len(l.sinks) {
					return 0
				}
				return float64(get(&l.sinks[i].shaped).Load())
			}, append([]stat.Label{{Name: "sink", Value: c.Name}}, labels...)...)
		}
		dropped := func(reason shape.Reason, get func(*shaped) *atomic.Uint64) {
			counter("dropped_records", "Records that a rule kept from the sink: by keep and drop (rule), sample or budget.", get, stat.Label{Name: "reason", Value: reason.String()})
		}
		dropped(shape.Filtered, func(t *shaped) *atomic.Uint64 { return &t.filtered })
		dropped(shape.Sampled, func(t *shaped) *atomic.Uint64 { return &t.sampled })
		dropped(shape.Over, func(t *shaped) *atomic.Uint64 { return &t.over })
		counter("joined_lines", "Lines that multiline rules appended to the one before.", func(t *shaped) *atomic.Uint64 { return &t.joined })
		counter("cut_records", "Records that reached the bounds of their multiline rule and were cut.", func(t *shaped) *atomic.Uint64 { return &t.cut })
		counter("parsed_records", "Records whose line gave fields.", func(t *shaped) *atomic.Uint64 { return &t.parsed })
		counter("unparsed_records", "Records whose line was not of the form that their rule names, sent as they are.", func(t *shaped) *atomic.Uint64 { return &t.unparsed })
		counter("untimed_records", "Records whose time field was absent or no time.", func(t *shaped) *atomic.Uint64 { return &t.untimed })
		counter("redacted_records", "Records in which something was replaced.", func(t *shaped) *atomic.Uint64 { return &t.redacted })
		counter("summaries", "Records that tell how many others sample and budget have dropped.", func(t *shaped) *atomic.Uint64 { return &t.summaries })
	}
}

// stopped tells whether the reader should end: ctx has, and nothing more is to be read. It puts what is owed into b.
func (s *shipper) stopped(ctx context.Context, b *batch) bool {
	if ctx.Err() == nil {
		return false
	}
	s.summarize(b)
	return b.empty()
}
