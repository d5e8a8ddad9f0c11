package shape

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// budget is how many records a log may have in a time, by the times of the records themselves: a backlog that is read
// after an outage is judged as it would have been without one, and every sink gets the same.
type budget struct {
	n    int64
	unit time.Duration
	text string
}

var units = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

// parseBudget reads "1000/s".
func parseBudget(s string) (*budget, error) {
	count, unit, _ := strings.Cut(s, "/")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 || n > 1e9 || units[unit] == 0 {
		return nil, errors.New("not a budget")
	}
	return &budget{n: n, unit: units[unit], text: s}, nil
}

// less tells which of two budgets allows less in the long run.
func (b *budget) less(o *budget) bool {
	return float64(b.n)/b.unit.Seconds() < float64(o.n)/o.unit.Seconds()
}

// spend takes one record's share; what a unit allows may come at once.
func (s *State) spend(b *budget, at, now int64) bool {
	if at == 0 {
		at = now
	}
	at = max(at, s.last) // stdout and stderr may be a little out of order
	s.last = at
	share := int64(b.unit) / b.n
	next := max(s.spent, at) + share
	if next-at > int64(b.unit) {
		return false
	}
	s.spent = next
	return true
}

// tally is what was dropped since the last summary.
type tally struct {
	sampled, over uint64
	since         int64 // the reader's clock at the first
	first, last   int64 // times of the records
}

func (t *tally) any() bool { return t.sampled+t.over > 0 }

func (t *tally) add(why Reason, at, now int64) {
	if at == 0 {
		at = now
	}
	if !t.any() {
		t.since, t.first, t.last = now, at, at
	}
	t.first, t.last = min(t.first, at), max(t.last, at)
	if why == Sampled {
		t.sampled++
	} else {
		t.over++
	}
}

// due adds the summary when it is time for it, or always.
func (s *State) due(now int64, always bool) {
	t := &s.tally
	if !t.any() || !always && now-t.since < int64(summaryEvery) {
		return
	}
	stamp := func(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }
	text := fmt.Sprintf("fairlead: %d records of this log were dropped between %s and %s:", t.sampled+t.over, stamp(t.first), stamp(t.last))
	var fields []sink.Field
	why := func(n uint64, name, rule string) {
		if n > 0 {
			text += fmt.Sprintf(" %d by %s;", n, rule)
			fields = append(fields, sink.Field{Name: "fairlead_dropped_" + name, Value: strconv.FormatUint(n, 10)})
		}
	}
	why(t.sampled, "sample", fmt.Sprintf("sampling 1 of %d", s.chain.sample))
	if b := s.chain.budget; b != nil {
		why(t.over, "budget", "the budget of "+b.text)
	}
	s.out = append(s.out, Out{Line: decode.Line{At: t.last, Text: []byte(strings.TrimSuffix(text, ";"))}, Fields: fields, Summary: true})
	s.Summaries++
	*t = tally{}
}
