package logship

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// StreamStatus is one line of `fairlead logs ls`.
type StreamStatus struct {
	Stream    string         `json:"stream"`
	Name      string         `json:"name,omitempty"`
	Container string         `json:"container,omitempty"`
	Runtime   string         `json:"runtime,omitempty"`
	Path      string         `json:"path"` // on the host
	Root      string         `json:"root"` // a directory out of which no link in File leads, and ...
	File      string         `json:"file"` // ... the path below it
	Format    string         `json:"format"`
	Size      int64          `json:"size_bytes"` // of the current generation
	Kept      int            `json:"generations"`
	Truncated bool           `json:"truncated,omitempty"` // its writer was seen to empty it
	Ended     bool           `json:"ended,omitempty"`
	Sinks     []StreamLedger `json:"sinks"`
}

// StreamLedger is what one sink has of one stream. Counts begin with the agent.
type StreamLedger struct {
	Sink    string     `json:"sink"`
	Class   sink.Class `json:"class"`
	Rate    float64    `json:"acknowledged_per_second"` // records, lately
	Read    uint64     `json:"read"`                    // records
	Sent    uint64     `json:"sent"`
	Acked   uint64     `json:"acknowledged"`
	Lag     int64      `json:"lag_bytes"`
	Lost    uint64     `json:"lost_bytes_at_least"`
	Whole   uint64     `json:"lost_generations_at_least"` // of which nothing was read; Lost has the least that was in them
	Dropped Dropped    `json:"dropped"`
	Doubled uint64     `json:"possibly_doubled"`
}

// Dropped is how many records rules kept from a sink.
type Dropped struct {
	Rule   uint64 `json:"rule"` // by drop and keep
	Sample uint64 `json:"sample"`
	Budget uint64 `json:"budget"` // by rate
}

func (n *counts) drops() Dropped {
	return Dropped{n.dropped[shape.Filtered].Load(), n.dropped[shape.Sampled].Load(), n.dropped[shape.Over].Load()}
}

// SinkStatus is one sink as `fairlead status` shows it.
type SinkStatus struct {
	Name      string     `json:"name"`
	Class     sink.Class `json:"class"`
	Up        bool       `json:"up"` // the last delivery succeeded
	Error     string     `json:"error,omitempty"`
	LastAck   time.Time  `json:"last_acknowledged,omitzero"`
	Read      uint64     `json:"read"`
	Sent      uint64     `json:"sent"`
	Acked     uint64     `json:"acknowledged"`
	Lag       int64      `json:"lag_bytes"`
	Lost      uint64     `json:"lost_bytes_at_least"`
	Whole     uint64     `json:"lost_generations_at_least"`
	Doubled   uint64     `json:"possibly_doubled"`
	Failures  uint64     `json:"failures"`
	Rejected  uint64     `json:"rejected"`  // refused for good, kept in the dead-letter file
	Malformed uint64     `json:"malformed"` // raw lines that were not of their format, sent as they are
	Split     uint64     `json:"split"`     // lines longer than the bound, sent in parts
}

// Streams tells what is followed and how far each sink is, sorted by stream.
func (l *Logship) Streams() []StreamStatus {
	l.mu.Lock()
	streams := l.streams
	l.mu.Unlock()
	out := make([]StreamStatus, 0, len(streams))
	for _, s := range streams {
		o := s.origin.Load()
		st := StreamStatus{Stream: s.key, Name: o.Name, Container: o.ID, Runtime: o.Runtime, Path: string(s.src.Root) + s.src.Path,
			Root: string(s.src.Root), File: s.src.Path, Format: string(s.src.Format), Kept: s.series.Generations(), Truncated: s.series.Cuts(), Ended: s.ended.Load()}
		if s.src.Root == "/" {
			st.Path = s.src.Path
		}
		if g := s.series.Last(); g != nil {
			st.Size = g.Seen()
		}
		for _, c := range s.cursors {
			st.Sinks = append(st.Sinks, StreamLedger{Sink: c.sink.name, Class: c.sink.sink.Class(), Rate: c.rate.get(), Read: c.count.read.Load(), Sent: c.count.sent.Load(),
				Acked: c.count.acked.Load(), Lag: c.lag(), Lost: c.count.lost.Load(),
				Whole: c.count.whole.Load(), Dropped: c.count.drops(), Doubled: c.count.doubled.Load()})
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b StreamStatus) int { return cmp.Compare(a.Stream, b.Stream) })
	return out
}

// lag is how many bytes lie between what was acknowledged and what was seen.
func (c *cursor) lag() int64 {
	if c.excluded() {
		return 0
	}
	at := c.sink.acked(c)
	n := int64(0)
	for g := c.stream.series.First(); g != nil; g = g.Next() {
		switch {
		case g.Cut() || g.Seq < at.end.Gen:
		case g.Seq == at.end.Gen:
			n += max(0, g.Seen()-at.end.Off)
		default:
			n += g.Seen()
		}
	}
	return n
}

// Sinks tells how each sink does, in the order of the configuration.
func (l *Logship) Sinks() []SinkStatus {
	l.mu.Lock()
	sinks, streams := l.sinks, l.streams
	l.mu.Unlock()
	out := make([]SinkStatus, 0, len(sinks))
	for i, s := range sinks {
		st := SinkStatus{Name: s.name, Class: s.sink.Class(), Up: s.up.Load(), Read: s.total.read.Load(), Sent: s.total.sent.Load(),
			Acked: s.total.acked.Load(), Lost: s.total.lost.Load(), Whole: s.total.whole.Load(), Doubled: s.total.doubled.Load(), Failures: s.failures.Load(),
			Rejected: s.total.rejected.Load(), Malformed: s.total.malformed.Load(), Split: s.total.split.Load()}
		if e := s.lastErr.Load(); e != nil && !st.Up {
			st.Error = *e
		}
		if ns := s.lastAck.Load(); ns != 0 {
			st.LastAck = time.Unix(0, ns).UTC()
		}
		for _, str := range streams {
			st.Lag += str.cursors[i].lag()
		}
		out = append(out, st)
	}
	return out
}

// register exposes one series a sink of each counter; streams are too many for labels and are in Streams.
func (l *Logship) register() {
	if l.deps.Stat == nil {
		return
	}
	l.deps.Stat.Func("fairlead_logship_streams", "Logs that are followed now.", stat.TypeGauge, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(len(l.streams))
	})
	l.deps.Stat.Func("fairlead_logship_abandoned_bytes_total", "Disk space of undelivered logs that was freed because logship.pins_bytes was reached.", stat.TypeCounter, func() float64 {
		return float64(l.abandoned.Load())
	})
	l.deps.Stat.Func("fairlead_logship_event_overflows_total", "Times that the kernel's queue of file events overflowed and every log was looked at.", stat.TypeCounter, func() float64 {
		return float64(l.overflows.Load())
	})
	for i, c := range l.cfg.Sinks {
		series := func(name, help string, typ stat.Type, get func(SinkStatus) float64) {
			l.deps.Stat.Func("fairlead_logship_"+name, help, typ, func() float64 {
				if all := l.Sinks(); i < len(all) {
					return get(all[i])
				}
				return 0
			}, stat.Label{Name: "sink", Value: c.Name})
		}
		counter := func(name, help string, get func(SinkStatus) uint64) {
			series(name, help, stat.TypeCounter, func(s SinkStatus) float64 { return float64(get(s)) })
		}
		counter("records_read_total", "Records read for the sink.", func(s SinkStatus) uint64 { return s.Read })
		counter("records_sent_total", "Records handed to the sink, repetitions included.", func(s SinkStatus) uint64 { return s.Sent })
		counter("records_acknowledged_total", "Records that the sink has acknowledged.", func(s SinkStatus) uint64 { return s.Acked })
		counter("records_possibly_doubled_total", "Records sent again that may have arrived before.", func(s SinkStatus) uint64 { return s.Doubled })
		counter("lost_bytes_at_least_total", "Bytes destroyed before they were read: a lower bound, from file sizes seen.", func(s SinkStatus) uint64 { return s.Lost })
		counter("lost_generations_at_least_total", "Generations of logs of which nothing was read: seen, or told of by the kernel's file events only.", func(s SinkStatus) uint64 { return s.Whole })
		counter("rejected_records_total", "Records that the sink refused for good; they are in its dead-letter file.", func(s SinkStatus) uint64 { return s.Rejected })
		counter("malformed_lines_total", "Raw lines that were not of their file's format, sent as they are.", func(s SinkStatus) uint64 { return s.Malformed })
		counter("split_lines_total", "Lines longer than the bound, sent in parts.", func(s SinkStatus) uint64 { return s.Split })
		counter("failures_total", "Deliveries that failed and were repeated.", func(s SinkStatus) uint64 { return s.Failures })
		series("lag_bytes", "Bytes in the files that the sink has not acknowledged.", stat.TypeGauge, func(s SinkStatus) float64 { return float64(s.Lag) })
		series("sink_up", "1 when the last delivery succeeded.", stat.TypeGauge, func(s SinkStatus) float64 {
			if s.Up {
				return 1
			}
			return 0
		})
	}
}
