package volumes

import (
	"context"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/volumes/backup"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

const reportEvery = 500 * time.Millisecond

// reportSnapshot calls say with what m has counted, now and then until the returned function is called, which calls it
// a last time and waits for it. say may be nil.
func reportSnapshot(ctx context.Context, m *snapshot.Meter, say func(Progress)) (stop func()) {
	if say == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	g := agent.NewGroup(ctx)
	now := func() {
		entries, bytes := m.Done()
		say(Progress{"snapshot", backup.Progress{Counts: backup.Counts{Entries: entries, Bytes: bytes}}})
	}
	now()
	g.Go(func(ctx context.Context) error {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				now()
			case <-ctx.Done():
				return nil
			}
		}
	})
	return func() {
		cancel()
		_ = g.Wait() // a panic in say would only cost the progress
		now()
	}
}
