package volumes

import (
	"context"

	"github.com/fairlead-dev/fairlead/volumes/backup"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// reportSnapshot calls say with what m has counted, at once and now and then until the returned function is called, which
// calls it a last time and waits for it. say may be nil.
func reportSnapshot(ctx context.Context, m *snapshot.Meter, say func(Progress)) (stop func()) {
	if say == nil {
		return func() {}
	}
	now := func() {
		entries, bytes := m.Done()
		say(Progress{"snapshot", backup.Progress{Counts: backup.Counts{Entries: entries, Bytes: bytes}}})
	}
	now()
	return backup.NowAndThen(ctx, now)
}
