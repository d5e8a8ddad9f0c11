package logship

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// placesPrefix begins the id of a resource that is no file: what the ledger has of a stream.
const placesPrefix = "positions of "

var errIdle = errors.New("the log shipper does not run")

// holdings is what logship has on this host at one moment.
type holdings struct {
	book    *ledger.Book
	keep    *tail.Pins
	streams map[string]*stream
	sinks   int
	saved   map[string]ledger.Source
	pins    []tail.Pin
	byPin   map[string]string // stream by what its pins begin with
}

func (l *Logship) holdings() (holdings, error) {
	l.mu.Lock()
	h := holdings{book: l.book, keep: l.keep, streams: l.streams, sinks: len(l.sinks), byPin: map[string]string{}}
	l.mu.Unlock()
	if h.book == nil {
		return h, errIdle
	}
	var err error
	h.pins, err = h.keep.List() // before the streams: none of these is of one that is not known yet
	h.saved = h.book.Streams()
	for key, src := range h.saved {
		h.byPin[h.keep.Stream(src.Root, src.Path)] = key
	}
	return h, err
}

// needed says why something of a stream must stay; evidence says what is known when it need not.
func (h *holdings) needed(key string) (why, evidence string) {
	s, followed := h.streams[key]
	_, saved := h.saved[key]
	switch {
	case followed:
		if behind := s.missing(); behind != "" {
			return "kept until it is delivered: " + behind, behind
		}
		return "it is still followed; what every sink has is let go of within seconds", "every sink has acknowledged all of it"
	case !saved:
		return "", "every sink had acknowledged all of it when its stream was closed"
	case h.sinks > 0:
		return "it waits to be read: there was no descriptor, or the agent has just started", "not read yet"
	}
	return "", "no sink is configured that waits for it"
}

// missing names the sinks that have not acknowledged all of the stream.
func (s *stream) missing() string {
	var out []string
	for _, c := range s.cursors {
		if c.excluded() {
			continue // its lines go to other sinks only
		}
		if n := c.lag(); n > 0 || s.ended.Load() && !c.finished.Load() {
			out = append(out, fmt.Sprintf("sink %s has not acknowledged %d bytes", c.sink.name, n))
		}
	}
	return strings.Join(out, ", ")
}

// Owned gives the pins of this agent and the places in containers' logs that the ledger keeps. It makes Logship a
// reap.Owner. What a sink has not acknowledged, or may not have, is only reported.
func (l *Logship) Owned(context.Context) ([]reap.Resource, error) {
	h, err := l.holdings()
	if err != nil {
		return nil, err
	}
	var out []reap.Resource
	for _, pin := range h.pins {
		r := reap.Resource{Kind: reap.Log, ID: pin.Link, Instance: instance(pin.ID), Size: pin.Size, Claim: claim(pin.Whose.Runtime, pin.Whose.ID)}
		key := h.byPin[pin.Stream]
		if src, ok := h.saved[key]; ok && pin.Whose == (tail.Whose{}) {
			r.Claim = claim(src.Origin.Runtime, src.Origin.ID)
		}
		r.Weak = r.Claim.ID == "" // a file of the host: no container ever had it
		why, evidence := h.needed(key)
		if pin.Foreign && !pin.Held {
			why, evidence = "the positions that would tell whether its lines were delivered are lost", "positions lost"
		}
		r.ReportOnly, r.Evidence = why, []string{evidence}
		if key != "" {
			r.Evidence = append(r.Evidence, "pinned for "+key)
		}
		out = append(out, r)
	}
	for key, src := range h.saved {
		if src.Origin == nil || src.Origin.ID == "" {
			continue
		}
		why, evidence := h.needed(key)
		out = append(out, reap.Resource{Kind: reap.Log, ID: placesPrefix + key, Where: src.Path, Claim: claim(src.Origin.Runtime, src.Origin.ID),
			ReportOnly: why, Evidence: []string{evidence}})
	}
	return out, nil
}

func claim(runtime, id string) reap.Claim {
	if runtime == "" || id == "" {
		return reap.Claim{}
	}
	kind, _, _ := strings.Cut(runtime, "@") // a second one of a kind has its socket in its name
	return reap.Claim{Runtimes: []string{kind}, ID: container.ID(id)}
}

func instance(id tail.Identity) string { return fmt.Sprintf("%d-%d", id.Ino, id.Birth) }

// Release removes a pin, or forgets the places in a stream. It fails while a sink may still want a line of it.
func (l *Logship) Release(_ context.Context, r reap.Resource) error {
	h, err := l.holdings()
	if err != nil {
		return fmt.Errorf("release %s: %w", r.ID, err)
	}
	if key, ok := strings.CutPrefix(r.ID, placesPrefix); ok {
		if _, saved := h.saved[key]; !saved {
			return nil
		}
		if why, _ := h.needed(key); why != "" {
			return fmt.Errorf("release %s: %s", r.ID, why)
		}
		return h.book.DropStream(key)
	}
	for _, pin := range h.pins {
		if pin.Link != r.ID || instance(pin.ID) != r.Instance {
			continue
		}
		why, _ := h.needed(h.byPin[pin.Stream])
		if why != "" || pin.Foreign || pin.Held {
			return fmt.Errorf("release %s: its lines may not be delivered yet", r.ID)
		}
		return h.keep.Remove(pin)
	}
	return nil
}

// Busy gives the containers of whose logs a sink has not acknowledged everything: what they left must not be cleared
// yet.
func (l *Logship) Busy() map[container.ID]bool {
	l.mu.Lock()
	streams := l.streams
	l.mu.Unlock()
	out := map[container.ID]bool{}
	for _, s := range streams {
		if s.owner.ID != "" && s.missing() != "" {
			out[s.owner.ID] = true
		}
	}
	return out
}
