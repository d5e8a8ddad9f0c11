package backup

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
)

// Progress is how far an operation is.
type Progress struct {
	Counts
	Of     Counts `json:"of,omitzero"`      // what there is in all; zero when that is not known
	Stored int64  `json:"stored,omitempty"` // bytes that a backup has added to the repository
}

// meter counts what is done. Its methods are safe for concurrent use.
type meter struct {
	entries, files, bytes, stored atomic.Int64
	of                            Counts
}

func (m *meter) counts() Counts {
	return Counts{Entries: m.entries.Load(), Files: m.files.Load(), Bytes: m.bytes.Load()}
}

// report calls say now and then until the returned function is called, which calls it a last time and waits for it.
func (m *meter) report(ctx context.Context, say func(Progress)) (stop func()) {
	if say == nil {
		return func() {}
	}
	return NowAndThen(ctx, func() { say(Progress{Counts: m.counts(), Of: m.of, Stored: m.stored.Load()}) })
}

const reportEvery = 500 * time.Millisecond

// NowAndThen calls say each half second until the returned function is called, which calls it a last time and waits for
// it; ctx ends only what is called in between.
func NowAndThen(ctx context.Context, say func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	g := agent.NewGroup(ctx)
	g.Go(func(ctx context.Context) error {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				say()
			case <-ctx.Done():
				return nil
			}
		}
	})
	return func() {
		cancel()
		_ = g.Wait() // a panic in say would only cost the progress
		say()
	}
}
