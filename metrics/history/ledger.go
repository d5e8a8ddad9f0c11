package history

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/metrics/cgroup"
)

// What a record may lack.
const (
	NoBegin   = "begin"   // it ran before the history was on; that time is not in
	NoEnd     = "end"     // it ended unseen; what it used after its last sample is not in
	NoMemory  = "memory"  // for a part of the time its memory is not known, and not in
	NoNetwork = "network" // it ended; what it sent and received after its last sample is not in
	Reset     = "reset"   // a counter went backwards; what was used around that is not in
)

// Record is what one life of a container used in one slot.
type Record struct {
	Who
	Life    string    `json:"life"`
	Started time.Time `json:"started,omitzero"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Used    Amounts   `json:"used"`
	// MemoryByteSeconds is the working set, summed over time.
	MemoryByteSeconds float64  `json:"memory_byte_seconds"`
	Missing           []string `json:"missing,omitempty"`
	Ended             bool     `json:"ended,omitempty"`

	// Last and Memory are the readings at To: the next ones go on from there.
	Last   Amounts `json:"last"`
	Memory *uint64 `json:"memory,omitempty"`
}

// Slot is a stretch of time with the records of all containers in it.
type Slot struct {
	From    time.Time `json:"from"`
	At      time.Time `json:"at"` // of the last sample
	Records []Record  `json:"records"`
}

// Step is what one sample added: the raw material of profiles.
type Step struct {
	Sample
	Took time.Duration // since the sample before; 0 for a first one
	Used Amounts       // in that time
}

// mostRecords bounds the containers of one slot.
const mostRecords = 20_000

// Ledger keeps account of one slot after the other. It has no clock and no disk.
type Ledger struct {
	length, interval time.Duration
	from, at         time.Time
	records          map[string]*Record // by life
	done             map[string]bool    // lives that ended and whose last sample is still being shown to us
}

// NewLedger makes a ledger of slots that goes on from last, which may be zero.
func NewLedger(length, interval time.Duration, last Slot) *Ledger {
	l := &Ledger{length: length, interval: interval, from: last.From, at: last.At, records: map[string]*Record{}, done: map[string]bool{}}
	for i := range last.Records {
		l.records[last.Records[i].Life] = &last.Records[i]
	}
	return l
}

// Add takes the samples of all containers that there are at the moment now. Those that it knew and that are not among
// them have ended unseen. It gives what each sample added, and how many it had no room for.
func (l *Ledger) Add(now time.Time, samples []Sample) (steps []Step, dropped int) {
	if l.from.IsZero() {
		l.from = now.Truncate(l.length)
	}
	shown := make(map[string]bool, len(samples))
	done := map[string]bool{}
	for _, s := range samples {
		if s.Ended && l.done[s.Life] {
			done[s.Life] = true
			continue
		}
		shown[s.Life] = true
		r := l.records[s.Life]
		if !s.Read && (!s.Ended || r == nil && !l.since(s)) {
			continue
		}
		if r == nil {
			if len(l.records) >= mostRecords {
				dropped++
				continue
			}
			r = l.open(s)
			l.records[s.Life] = r
		}
		if r.Ended {
			continue
		}
		if !s.Read {
			done[s.Life] = true
			r.Ended, r.To = true, latest(r.To, s.At)
			r.lacks(NoEnd)
			continue
		}
		steps = append(steps, r.add(s, l.interval))
		if s.Ended {
			done[s.Life] = true
		}
	}
	for _, r := range l.records {
		if !shown[r.Life] && !r.Ended && !done[r.Life] {
			r.Ended = true
			r.lacks(NoEnd)
		}
	}
	l.at, l.done = now, done
	return steps, dropped
}

// unnoticed is for how long a container may have run before the inventory showed it.
const unnoticed = 30 * time.Second

// since tells whether s began after the sample before, or so shortly before that it was not noticed yet.
func (l *Ledger) since(s Sample) bool {
	return !l.at.IsZero() && !s.Started.IsZero() && s.Started.After(l.at.Add(-unnoticed))
}

// open begins the record of a life that was not known. If it began since the sample before, all of it is in its counters.
func (l *Ledger) open(s Sample) *Record {
	r := &Record{Who: s.Who, Life: s.Life, Started: s.Started, From: s.Started, To: s.Started}
	if !l.since(s) {
		r.From, r.To = s.At, s.At
		r.Last = s.Total
		r.remember(s.Level.Memory)
		r.lacks(NoBegin)
		return r
	}
	for i, v := range s.Total {
		r.Last[i] = cgroup.Value{Known: v.Known}
	}
	return r
}

// add counts what s shows beyond the reading before.
func (r *Record) add(s Sample, interval time.Duration) Step {
	step := Step{Sample: s, Took: max(0, s.At.Sub(r.To))}
	for i, v := range s.Total {
		was := r.Last[i]
		if !v.Known {
			continue
		}
		switch {
		case !was.Known: // a counter that appears, as block I/O does with the first request, counts from 0
			was.N = 0
		case v.N < was.N:
			r.lacks(Reset)
			was.N = 0
		}
		step.Used[i] = cgroup.Known(v.N - was.N)
		r.Used[i] = cgroup.Known(r.Used[i].N + v.N - was.N)
		r.Last[i] = v
	}
	r.weigh(s, step.Took, interval)
	if s.Ended {
		r.Ended = true
		if r.Last[BytesReceived].Known {
			r.lacks(NoNetwork)
		}
	}
	r.Who, r.To = s.Who, latest(r.To, s.At)
	return step
}

// weigh adds the memory held since the reading before: the mean of both ends. Of one that ended only the first end is
// known, because its memory went with its process; one that lived between two samples held at most its peak.
func (r *Record) weigh(s Sample, took, interval time.Duration) {
	was, is := r.Memory, s.Level.Memory
	var held float64
	switch {
	case took == 0:
		r.remember(is)
		return
	case took > 3*interval: // the agent was away
		r.lacks(NoMemory)
		r.remember(is)
		return
	case s.Ended && was != nil:
		held = float64(*was)
	case s.Ended && s.Level.Peak.Known:
		held = float64(s.Level.Peak.N)
	case s.Ended || !is.Known:
		r.lacks(NoMemory)
	case was != nil:
		held = (float64(*was) + float64(is.N)) / 2
	default:
		held = float64(is.N)
	}
	r.MemoryByteSeconds += held * took.Seconds()
	r.remember(is)
}

func (r *Record) remember(memory cgroup.Value) {
	r.Memory = nil
	if memory.Known {
		r.Memory = new(memory.N)
	}
}

func (r *Record) lacks(what string) {
	if !slices.Contains(r.Missing, what) {
		r.Missing = append(r.Missing, what)
	}
}

// Slot gives the slot that is being written, as it stands.
func (l *Ledger) Slot() Slot {
	s := Slot{From: l.from, At: l.at, Records: make([]Record, 0, len(l.records))}
	for _, r := range l.records {
		c := *r
		c.Missing = slices.Clone(r.Missing)
		s.Records = append(s.Records, c)
	}
	slices.SortFunc(s.Records, func(a, b Record) int { return cmp.Compare(a.Life, b.Life) })
	return s
}

// Roll begins the slot of now when the current one is over, and tells whether it did. What was written is closed then:
// the new slot knows the last readings and nothing of what was used.
func (l *Ledger) Roll(now time.Time) bool {
	if l.from.IsZero() || now.Sub(l.from) < l.length {
		return false
	}
	l.from = now.Truncate(l.length)
	for life, r := range l.records {
		if r.Ended {
			delete(l.records, life)
			continue
		}
		l.records[life] = &Record{Who: r.Who, Life: life, Started: r.Started, From: r.To, To: r.To, Last: r.Last, Memory: r.Memory}
	}
	return true
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
