package logship

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/tail"
)

// Why nothing is sent again.
var (
	ErrNoLog        = errors.New("no followed log is called that")
	ErrNoSink       = errors.New("no sink of this log is called that")
	ErrNothingSince = errors.New("nothing was written since")
)

// ResendRequest asks for lines that sinks have had.
type ResendRequest struct {
	Log   string    `json:"log"` // a container's name or the beginning of its id, a stream, or a path
	Since time.Time `json:"since"`
	Sink  string    `json:"sink,omitempty"` // empty: every sink that the log goes to
}

// Resent tells how far one sink is with the lines of one log.
type Resent struct {
	Stream  string   `json:"stream"`
	Sink    string   `json:"sink"`
	Read    uint64   `json:"read"` // records
	Acked   uint64   `json:"acknowledged"`
	Done    bool     `json:"done"`
	Error   string   `json:"error,omitempty"`   // why the sink takes nothing now
	Skipped []string `json:"skipped,omitempty"` // files that could not be read
}

// Called tells whether name means this log.
func (s *StreamStatus) Called(name string) bool {
	return s.Name == name || s.Stream == name || s.Path == name || len(name) >= 4 && strings.HasPrefix(s.Container, name)
}

// Resend sends what sinks have acknowledged of a log since then once more: from the files that are there, the rotated
// ones too, with the same labels and rules, and in turn with the lines that come. It moves no position, so after a crash
// nothing of it is left. A plain file without a rule for its lines' times is sent from the beginning of the first
// generation that was written to since then. It blocks until all is acknowledged or ctx ends, and calls say meanwhile.
func (l *Logship) Resend(ctx context.Context, req ResendRequest, say func([]Resent)) ([]Resent, error) {
	l.mu.Lock()
	streams, ending := l.streams, l.ending
	l.mu.Unlock()
	if ending == nil {
		return nil, errIdle
	}
	all, err := l.replays(req, streams)
	defer func() {
		for _, r := range all {
			r.abandon()
		}
	}()
	if err != nil {
		return nil, err
	}
	some := false
	for _, r := range all {
		r.only(func(id tail.Identity) bool {
			for _, s := range streams {
				if s.key != r.stream && s.series.Has(id) {
					return true
				}
			}
			return false
		})
		found, err := r.seek(ctx)
		if err != nil {
			return nil, err
		}
		some = some || found
		r.begin()
	}
	if !some {
		return nil, fmt.Errorf("resend %s: %w %s, as far as its sinks have it and its files are there", req.Log, ErrNothingSince, req.Since.Format(time.RFC3339))
	}
	status := func() (out []Resent) {
		for _, r := range all {
			out = append(out, r.status())
		}
		return out
	}
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	for _, r := range all {
		for waiting := true; waiting; {
			select {
			case <-r.finished:
				waiting = false
			case <-tick.C:
				say(status())
			case <-ctx.Done():
				return status(), ctx.Err()
			case <-ending:
				return status(), fmt.Errorf("resend %s: the agent stops; what is not acknowledged yet is not sent", req.Log)
			}
		}
	}
	return status(), nil
}

// resending is one replay that somebody waits for.
type resending struct {
	*replay
	stream   string
	finished chan struct{}
	begun    bool
}

// replays makes one for each log and sink that is asked for.
func (l *Logship) replays(req ResendRequest, streams map[string]*stream) (out []*resending, err error) {
	sinks := map[string]bool{}
	for _, st := range l.Streams() {
		live := streams[st.Stream]
		if live == nil || !st.Called(req.Log) {
			continue
		}
		for c := range live.readers() {
			sinks[c.sink.name] = true
			if req.Sink != "" && c.sink.name != req.Sink {
				continue
			}
			finished := make(chan struct{})
			r, err := newReplay(live, c, req.Since.UnixNano(), func() { close(finished) })
			if err != nil {
				return out, err
			}
			out = append(out, &resending{replay: r, stream: st.Stream, finished: finished})
		}
	}
	switch {
	case len(sinks) == 0:
		return nil, fmt.Errorf("resend %s: %w; `fairlead logs ls` names them", req.Log, ErrNoLog)
	case len(out) == 0:
		var names []string
		for n := range sinks {
			names = append(names, n)
		}
		slices.Sort(names)
		return nil, fmt.Errorf("resend to %s: %w; its lines go to %s", req.Sink, ErrNoSink, strings.Join(names, ", "))
	}
	return out, nil
}

// begin hands the replay over to its sink.
func (r *resending) begin() {
	r.begun = true
	r.c.sink.wake(r.c)
}

// abandon gives up what is not read yet.
func (r *resending) abandon() {
	if !r.begun {
		r.close()
		return
	}
	if r.stop.Store(true); !r.c.finished.Load() {
		r.c.sink.wake(r.c)
	}
}

func (r *resending) status() Resent {
	s := Resent{Stream: r.stream, Sink: r.c.sink.name, Read: r.c.count.read.Load(), Acked: r.c.count.acked.Load()}
	select {
	case <-r.finished:
		s.Done, s.Skipped = true, r.skipped
	default:
		if e := r.c.sink.lastErr.Load(); e != nil && !r.c.sink.up.Load() {
			s.Error = *e
		}
	}
	return s
}
