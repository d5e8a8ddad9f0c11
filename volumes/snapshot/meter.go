package snapshot

import "sync/atomic"

// Meter counts what a driver has taken so far; others may read it meanwhile. A nil Meter counts nothing. A driver that
// reads nothing, as that of btrfs, leaves it at zero.
type Meter struct{ entries, bytes atomic.Int64 }

// Done gives what was taken so far.
func (m *Meter) Done() (entries, bytes int64) { return m.entries.Load(), m.bytes.Load() }

func (m *Meter) add(entries, bytes int64) {
	if m != nil {
		m.entries.Add(entries)
		m.bytes.Add(bytes)
	}
}
