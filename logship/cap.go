package logship

import (
	"slices"

	"github.com/fairlead-dev/fairlead/logship/tail"
)

// kept is a generation that only this agent keeps on the disk.
type kept struct {
	stream *stream
	gen    *tail.Generation
	bytes  int64
}

// bound holds what only this agent keeps on the disk below pins_bytes. What every sink has is let go of before, with
// each release; then the oldest is given up unread.
func (f *follower) bound() {
	limit := int64(f.l.cfg.PinsBytes)
	if limit == 0 {
		return
	}
	var all []kept
	total := int64(0)
	for _, s := range f.streams {
		for g, n := range s.series.Only() {
			all = append(all, kept{s, g, n})
			total += n
		}
		total += s.series.MirrorBytes()
	}
	f.full = total >= limit
	for _, k := range oldestFirst(all) {
		if total <= limit {
			return
		}
		missing := k.stream.missing()
		if err := k.stream.series.Abandon(k.gen); err != nil {
			f.log.Warn("the disk space of an undelivered log could not be freed", "stream", k.stream.key, "err", err)
			continue
		}
		total -= k.bytes
		f.l.abandoned.Add(uint64(k.bytes))
		f.log.Error("undelivered lines were given up, because what waits for sinks takes more than logship.pins_bytes", "stream", k.stream.key, "bytes", k.bytes, "limit", limit, "missing", missing)
		k.stream.wake()
	}
}

func oldestFirst(all []kept) []kept {
	slices.SortFunc(all, func(a, b kept) int {
		if a.gen.ID.Birth != b.gen.ID.Birth {
			return int(min(1, max(-1, a.gen.ID.Birth-b.gen.ID.Birth)))
		}
		return int(a.gen.Seq - b.gen.Seq)
	})
	return all
}
