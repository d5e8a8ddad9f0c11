package logship

import (
	"hash/crc32"
	"io"

	"github.com/fairlead-dev/fairlead/logship/ledger"
)

// sumBytes bounds what is summed with one sync of the positions: under load the sums come after, and they cost one
// percent of a core at most.
const sumBytes = 16 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum brings the sums of what a sink has up to date, for `logs verify`.
func (f *follower) sum() {
	left := int64(sumBytes)
	sums := map[string]ledger.Sum{}
	for key, s := range f.streams {
		if left <= 0 {
			break
		}
		if n, grown := s.sumUp(left); grown {
			left -= n
			sums[key] = s.summed
		}
	}
	if len(sums) == 0 {
		return
	}
	if err := f.book.Summed(sums); err != nil {
		f.log.Warn("sums of what was delivered could not be saved", "err", err)
	}
}

// sumUp reads on from where the newest file was summed to what a sink has acknowledged.
func (s *stream) sumUp(limit int64) (n int64, grown bool) {
	g := s.series.Last()
	if g == nil {
		return 0, false
	}
	end := int64(0)
	for _, c := range s.cursors {
		if at := c.sink.acked(c).end; at.Gen == g.Seq && !c.excluded() {
			end = max(end, at.Off)
		}
	}
	if id := g.Identity(); s.summed.Identity != id || s.summed.Offset > end {
		s.summed = ledger.Sum{Identity: id}
	}
	if end <= s.summed.Offset {
		return 0, false
	}
	part := io.NewSectionReader(g, s.summed.Offset, min(end-s.summed.Offset, limit))
	buf := make([]byte, 64<<10)
	for {
		m, err := part.Read(buf)
		s.summed.CRC = crc32.Update(s.summed.CRC, castagnoli, buf[:m])
		s.summed.Offset += int64(m)
		n += int64(m)
		if err != nil {
			break
		}
	}
	return n, n > 0
}
