// Package history remembers what containers used, for two questions that a scrape cannot answer: how large should a
// limit be, and who used how much since then.
//
//	metrics ── one Sample of each container a minute ──> Ledger  ── one file a slot ──> Usage   (fairlead usage)
//	                                              └────> Profile ── one file a day ───> Advise  (fairlead advise)
//
// The ledger and the profiles decide with values only; Run is the thin part that has a clock and a disk. The ledger's
// newest file is replaced after each sample and holds the counters as they were read last, so a kill -9 loses nothing
// of a container that still lives when the agent is back: its counters have gone on. The profiles are written at each
// slot's end: a crash costs them the minutes since then.
package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
)

// Deps is what the history works with. All fields are needed but Now.
type Deps struct {
	// Samples reads every container now: those that live, and the last samples of those that ended lately. One that is
	// there but could not be read is in it without Read.
	Samples func(ctx context.Context) ([]Sample, error)
	State   *state.Dir
	Stats   *stat.Registry
	Now     func() time.Time // nil is time.Now
}

// History is what was remembered. Its methods are safe for concurrent use.
type History struct {
	cfg     Config
	deps    Deps
	store   store
	samples *stat.Counter
	dropped *stat.Counter
	took    *stat.Gauge

	mu      sync.Mutex
	loaded  bool
	ledger  *Ledger
	book    *Book
	advices map[string]Advice // by subject, as of the last sample
}

// New makes the history. It reads nothing and starts nothing.
func New(cfg Config, deps Deps) *History {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &History{
		cfg: cfg, deps: deps, store: store{deps.State},
		samples: deps.Stats.Counter("fairlead_history_samples_total", "Samples of containers that the history took."),
		dropped: deps.Stats.Counter("fairlead_history_dropped_total", "Samples that the history did not take, because it holds as many containers as it may."),
		took:    deps.Stats.Gauge("fairlead_history_sample_seconds", "Time that the last sample of all containers took, reading and writing included."),
	}
}

// Run samples at each full interval until ctx ends, then writes down what it has and returns nil.
func (h *History) Run(ctx context.Context) error {
	if err := h.load(); err != nil {
		return err
	}
	agent.Ready(ctx)
	for {
		now := h.deps.Now()
		timer := time.NewTimer(now.Truncate(h.cfg.Interval).Add(h.cfg.Interval).Sub(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return h.close()
		case <-timer.C:
		}
		if err := h.Sample(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Sample takes one sample of all containers now and writes it down. Run calls it; so may a test.
func (h *History) Sample(ctx context.Context) error {
	if err := h.load(); err != nil {
		return err
	}
	began := time.Now()
	samples, err := h.deps.Samples(ctx)
	if err != nil {
		return fmt.Errorf("sample containers: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.deps.Now()
	steps, dropped := h.ledger.Add(now, samples)
	dropped += h.book.Add(now, steps)
	h.samples.Add(uint64(len(samples)))
	h.dropped.Add(uint64(dropped))
	err = h.store.putSlot(h.ledger.Slot())
	if closed := h.ledger.Roll(now); closed || !h.book.Is(now) {
		err = errors.Join(err, h.store.putDay(h.book.today), h.store.expire(now.Add(-h.cfg.Keep)))
	}
	if !h.book.Is(now) {
		err = errors.Join(err, h.turn(now))
	}
	h.advices = h.book.Advise(h.cfg, false)
	h.took.Set(time.Since(began).Seconds())
	return err
}

// turn begins the day of now with what the days before it tell.
func (h *History) turn(now time.Time) error {
	past, today, err := h.store.days(now, now.Add(-h.cfg.Keep))
	if err != nil {
		return err
	}
	h.book = &Book{past: past, today: today}
	return nil
}

// load takes up what was written down before, once.
func (h *History) load() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loaded {
		return nil
	}
	now := h.deps.Now()
	last, err := h.store.lastSlot()
	if err != nil {
		return err
	}
	if last.At.IsZero() {
		last.At = now // what starts before the first sample is known from its start all the same
	}
	h.ledger = NewLedger(h.cfg.Slot, h.cfg.Interval, last)
	if err := h.turn(now); err != nil {
		return err
	}
	h.ledger.Roll(now)
	h.advices = h.book.Advise(h.cfg, false)
	h.loaded = true
	return nil
}

// close writes what a crash would lose.
func (h *History) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.store.putDay(h.book.today)
}

// Advice gives what is advised for each container that was seen while the history was kept, by name.
func (h *History) Advice() ([]Advice, error) {
	if err := h.load(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return sortedAdvice(h.book.Advise(h.cfg, true)), nil
}

// AdviceFor gives what is advised for one container; ok is false while nothing is known.
func (h *History) AdviceFor(w Who) (a Advice, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, ok = h.advices[w.Subject()]
	return a, ok
}

// Usage gives what each container used since then, as far as it was written down. It reads the files of that time, so
// it may block for the disk.
func (h *History) Usage(since time.Time) (Report, error) {
	if err := h.load(); err != nil {
		return Report{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	current := h.ledger.Slot()
	slots, err := h.store.slots(since.Truncate(h.cfg.Slot), current.From)
	if err != nil {
		return Report{}, err
	}
	return Sum(since, append(slots, current)), nil
}
