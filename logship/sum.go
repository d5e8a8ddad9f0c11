package logship

import (
	"hash/crc32"
	"io"
	"slices"

	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// sumBytes bounds what is summed with one sync of the positions: under load the sums come after, and they cost one
// percent of a core at most.
const sumBytes = 16 << 20

// olderSums is of how many rotated files of a log the sums are kept.
const olderSums = 5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum brings the sums of what a sink has up to date, for `logs verify`.
func (f *follower) sum() {
	left := int64(sumBytes)
	sums := map[string]ledger.Sum{}
	for key, s := range f.streams {
		if left <= 0 {
			break
		}
		if n, grown := s.sumUp(left, f.l.blockFile(key)); grown {
			left -= n
			sums[key] = s.summed
		}
	}
	if len(sums) == 0 {
		return
	}
	f.stirred = true // there may be more
	if err := f.book.Summed(sums); err != nil {
		f.log.Warn("sums of what was delivered could not be saved", "err", err)
	}
}

// sumUp reads on from where the stream was summed to what a sink has acknowledged, from one generation to the next.
func (s *stream) sumUp(limit int64, blocks string) (n int64, grown bool) {
	var front struct{ gen, off int64 }
	for _, c := range s.cursors {
		if at := c.sink.acked(c).end; !c.excluded() && (at.Gen > front.gen || at.Gen == front.gen && at.Off > front.off) {
			front.gen, front.off = at.Gen, at.Off
		}
	}
	for _, g := range s.series.Kept() {
		if g.Seq > front.gen {
			break
		}
		if g.Cut() || !s.summing(g) {
			continue
		}
		end := front.off
		if g.Seq < front.gen {
			end = g.Seen()
		}
		m := s.sumFile(g, end, limit-n, blocks)
		n, grown = n+m, grown || m > 0
		if s.summed.Offset < end {
			break
		}
	}
	return n, grown
}

// summing makes g the generation that is summed; false when its sum is finished, or will never be.
func (s *stream) summing(g *tail.Generation) bool {
	id := g.Identity()
	if s.sumSeq == 0 && s.summed.Identity == id { // an earlier run began it
		s.sumSeq = g.Seq
	}
	switch {
	case g.Seq < s.sumSeq, s.sumSeq == 0 && slices.ContainsFunc(s.summed.Older, func(o ledger.Sum) bool { return o.Identity == id }):
		return false
	case g.Seq > s.sumSeq:
		s.summed, s.sumSeq, s.blocks = s.summed.Next(id, olderSums), g.Seq, nil
	}
	s.summed.Identity = id // a copy has the same bytes
	return true
}

// sumFile sums what g has before end, at most limit bytes more.
func (s *stream) sumFile(g *tail.Generation, end, limit int64, blocks string) (n int64) {
	if s.summed.Offset > end {
		s.summed, s.blocks = s.summed.Next(s.summed.Identity, olderSums), nil
	}
	if end <= s.summed.Offset {
		return 0
	}
	if s.blocks == nil {
		s.blocks = openBlocks(blocks, g, s.summed.Offset)
	}
	part := io.NewSectionReader(g, s.summed.Offset, min(end-s.summed.Offset, limit))
	buf := make([]byte, 64<<10)
	for {
		m, err := part.Read(buf)
		s.summed.CRC = crc32.Update(s.summed.CRC, castagnoli, buf[:m])
		s.blocks.add(buf[:m])
		s.summed.Offset += int64(m)
		n += int64(m)
		if err != nil {
			break
		}
	}
	s.blocks.save()
	return n
}
