package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

const (
	relistEvery = time.Minute     // a net below the events
	pingEvery   = 5 * time.Second // finds a runtime that hangs without closing its stream
	listWithin  = 30 * time.Second
	firstRetry  = 100 * time.Millisecond
	lastRetry   = 2 * time.Second
	// fewChanges are asked for one by one; many at a time by one List.
	fewChanges = 64
)

// follow keeps the view of one runtime current until ctx ends. A runtime that does not answer keeps its containers.
func (v *Inventory) follow(ctx context.Context, s Source) error {
	f := &follower{inventory: v, source: s, log: v.log.With("runtime", s.Name(), "path", s.Socket())}
	label := runtimeLabel(s.Name())
	f.events = v.stat.Counter("fairlead_container_events_total", "Changes of containers that the runtime told by its event stream.", label)
	f.lists = v.stat.Counter("fairlead_container_lists_total", "Complete lists of containers that the runtime answered.", label)
	f.unanswered = v.stat.Counter("fairlead_container_unanswered_total", "Times that the runtime stopped answering: down, hanging, or slower than two seconds.", label)
	f.answered = v.stat.Gauge("fairlead_container_runtime_answered", "1 when the runtime answered its last question, else 0.", label)
	wait := firstRetry
	for {
		began := time.Now()
		err := f.session(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // whatever it says now, it ended because we are to end
		}
		if p := (*agent.PanicError)(nil); errors.As(err, &p) {
			return err
		}
		f.note(err)
		if time.Since(began) > relistEvery {
			wait = firstRetry
		}
		sleep(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, lastRetry)
	}
}

// follower is the conversation with one runtime.
type follower struct {
	inventory *Inventory
	source    Source
	log       *slog.Logger

	events, lists, unanswered *stat.Counter
	answered                  *stat.Gauge
}

// session watches the runtime and asks for what changed, until it stops answering.
func (f *follower) session(ctx context.Context) error {
	mail := newMailbox()
	g := agent.NewGroup(ctx)
	g.Go(func(ctx context.Context) error {
		err := f.source.Watch(ctx, func(h Handle) {
			f.events.Inc()
			mail.put(h)
		})
		if err == nil && ctx.Err() == nil {
			err = errors.New("the stream ended")
		}
		if err != nil {
			return fmt.Errorf("watch events: %w", err)
		}
		return nil
	})
	g.Go(func(ctx context.Context) error { return f.ask(ctx, g, mail) })
	return g.Wait()
}

func (f *follower) ask(ctx context.Context, g *agent.Group, mail *mailbox) error {
	select {
	case <-mail.ready: // the subscription stands
		mail.take() // what was told before the List is in it
	case <-time.After(answerWithin):
		return fmt.Errorf("subscribe to events: no answer within %s", answerWithin)
	case <-ctx.Done():
		return nil
	}
	defer f.inventory.relistBy(f.source.Name(), func() { mail.put("") })()
	if err := f.list(ctx); err != nil {
		return err
	}
	fetch := &fetcher{f: f, g: g, busy: map[Handle]bool{}}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	relist := time.NewTimer(jittered(relistEvery))
	defer relist.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-mail.ready:
			changed, unknown := mail.take()
			if unknown || len(changed) > fewChanges {
				err = f.list(ctx)
			} else {
				for _, h := range changed {
					fetch.get(h)
				}
			}
		case <-ping.C:
			err = bounded(ctx, answerWithin, f.source.Ping)
		case <-relist.C:
			err = f.list(ctx)
			relist.Reset(jittered(relistEvery))
		}
		if err != nil {
			return err
		}
	}
}

func (f *follower) list(ctx context.Context) error {
	var have []Container
	err := bounded(ctx, listWithin, func(ctx context.Context) (err error) {
		have, err = f.source.List(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	f.lists.Inc()
	f.change(func(w *view, now time.Time) ([]Tombstone, bool) { return w.list(now, have), true })
	f.note(nil)
	return nil
}

// fetcher asks for containers side by side, never twice at once for one: an engine that is starting one of them does not
// answer for it until then, and another that came later may be gone by then.
type fetcher struct {
	f *follower
	g *agent.Group

	mu   sync.Mutex
	busy map[Handle]bool // asked for now; true: it has changed since
}

func (x *fetcher) get(h Handle) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, busy := x.busy[h]; busy {
		x.busy[h] = true
		return
	}
	x.busy[h] = false
	x.g.Go(func(ctx context.Context) error {
		for {
			err := x.f.get(ctx, h)
			if err != nil || !x.again(h) {
				return err
			}
		}
	})
}

func (x *fetcher) again(h Handle) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if again := x.busy[h]; !again {
		delete(x.busy, h)
		return false
	}
	x.busy[h] = false
	return true
}

func (f *follower) get(ctx context.Context, h Handle) error {
	var c Container
	err := bounded(ctx, answerWithin, func(ctx context.Context) (err error) {
		c, err = f.source.Get(ctx, h)
		return err
	})
	switch {
	case errors.Is(err, ErrGone):
		f.change(func(w *view, now time.Time) ([]Tombstone, bool) {
			t, had := w.remove(h, now)
			if !had {
				return nil, false
			}
			return []Tombstone{t}, true
		})
	case err != nil:
		return fmt.Errorf("get container %s: %w", h, err)
	default:
		f.change(func(w *view, _ time.Time) ([]Tombstone, bool) { return nil, w.put(c) })
	}
	return nil
}

// change applies one answer to the runtime's view.
func (f *follower) change(apply func(*view, time.Time) (gone []Tombstone, changed bool)) {
	v := f.inventory
	v.mu.Lock()
	gone, changed := apply(v.view(f.source), time.Now())
	v.gone = append(v.gone, gone...)
	v.mu.Unlock()
	if changed {
		v.markDirty()
	}
}

// note says whether the runtime answered, aloud when that changed.
func (f *follower) note(err error) {
	v := f.inventory
	v.mu.Lock()
	w := v.view(f.source)
	flipped := w.answer(time.Now(), err)
	count := len(w.containers)
	v.mu.Unlock()
	v.markDirty()
	switch {
	case flipped && err != nil:
		f.answered.Set(0)
		f.unanswered.Inc()
		f.log.Warn("runtime does not answer; its containers are kept as last seen", "containers", count, "err", err)
	case flipped:
		f.answered.Set(1)
		f.log.Info("runtime answered", "containers", count)
	}
}

// view gives the view of a source, made on first use. The lock is held.
func (v *Inventory) view(s Source) *view {
	w := v.views[s.Name()]
	if w == nil {
		w = newView(s.Name(), s.Socket())
		v.views[s.Name()] = w
	}
	return w
}

// bounded calls f with a context that ends after d, and says so when that is why f failed.
func bounded(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	inner, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := f(inner)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer within %s: %w", d, err)
	}
	return err
}

// mailbox gathers the handles that changed; each is in it once, however often it changed before it was taken.
type mailbox struct {
	ready chan struct{} // holds one token when there is something to take

	mu      sync.Mutex
	changed []Handle
	in      map[Handle]bool
	unknown bool // something changed and nobody knows what
}

func newMailbox() *mailbox {
	return &mailbox{ready: make(chan struct{}, 1), in: map[Handle]bool{}}
}

func (m *mailbox) put(h Handle) {
	m.mu.Lock()
	if h == "" {
		m.unknown = true
	} else if !m.in[h] {
		m.in[h] = true
		m.changed = append(m.changed, h)
	}
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default: // there is a token already
	}
}

// take empties the mailbox, oldest first.
func (m *mailbox) take() (changed []Handle, unknown bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed, unknown = m.changed, m.unknown
	m.changed, m.unknown = nil, false
	clear(m.in)
	return changed, unknown
}

func jittered(d time.Duration) time.Duration { return d - rand.N(d/5) }

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
