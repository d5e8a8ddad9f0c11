package logship

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// pieceBytes is how much of a visited file is read at once: the longest line, and the bytes before it that prove a place.
const (
	proofBytes = 64
	pieceBytes = decode.MaxLine + proofBytes
)

var pieces = sync.Pool{New: func() any { return new([pieceBytes]byte) }}

// piece is one read of a visited file.
type piece struct {
	gen     *tail.Generation
	off     int64
	last    bool   // nobody will write any more
	stamp   string // of its lines
	head    []byte // of gen
	text    []byte // the lines, as the spool has them
	to      *tail.Place
	more    bool // there is more to be read now
	waiting bool // nothing tells when there is more
}

// read takes the whole lines of one read, or at the end of a generation or before a hole what stands there.
func (p *piece) read() error {
	buf := pieces.Get().(*[pieceBytes]byte)
	defer pieces.Put(buf)
	for {
		from, end := p.gen.Extent(p.off)
		if from > p.off {
			p.jump(p.gen, from)
		}
		before := int(min(p.off, proofBytes))
		n, err := p.gen.ReadAt(buf[:min(pieceBytes, int64(before)+end-p.off)], p.off-int64(before))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n < before {
			p.waiting = true // truncated just now; the next look finds out
			return nil
		}
		if err := p.begin(); err != nil {
			return err
		}
		if data := buf[:n]; p.lines(data, before) || p.turn(data, before) {
			return nil
		}
	}
}

// begin reads what proofs begin with.
func (p *piece) begin() error {
	head := make([]byte, 256)
	n, err := p.gen.ReadAt(head, 0)
	if p.head = head[:n]; errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// lines takes the whole lines after the first bytes of data. It tells whether there were any.
func (p *piece) lines(data []byte, before int) bool {
	used, off := before, p.off
	for used < len(data) {
		n, newline := bytes.IndexByte(data[used:], '\n'), 1
		if n < 0 {
			if len(data)-used < decode.MaxLine {
				break
			}
			n, newline = decode.MaxLine, 0 // the rest is a line of its own
		}
		p.off = off + int64(used+n+newline-before)
		p.line(data[:used+n+newline], data[used:used+n])
		used += n + newline
	}
	p.more = used > before
	return p.more
}

// turn decides what to do with what follows the last line: there is no more now, or a hole, or another generation. It
// tells whether that was all for this read.
func (p *piece) turn(data []byte, before int) bool {
	rest, next := data[before:], p.gen.Next()
	end := p.off + int64(len(rest))
	from, to := p.gen.Extent(end)
	switch {
	case from == end && to > end: // it grew
		p.more = true
		return true
	case from > end: // a hole, and something after it
	case next == nil && !p.last:
		return true
	case next != nil && !p.last && p.unfinished(next):
		p.waiting = true
		return true
	}
	if text := bytes.Trim(rest, "\x00"); len(text) > 0 {
		p.off = end
		p.line(data, text)
		p.more = true
		return true
	}
	switch {
	case from > end:
		p.jump(p.gen, from)
	case next != nil:
		p.jump(next, 0)
	default:
		return true
	}
	return false
}

// unfinished tells whether the program behind a generation may not have been told yet to begin anew.
func (p *piece) unfinished(next *tail.Generation) bool {
	_, changed, err := p.gen.Stat()
	return err == nil && p.gen.Busy() && (next.Seen() == 0 && next.Next() == nil || time.Since(changed) < time.Second)
}

// line adds a line that ends at p.off, where data ends too.
func (p *piece) line(data, text []byte) {
	head := p.head[:min(int64(len(p.head)), p.off)]
	p.to = &tail.Place{Identity: p.gen.Identity(), Proof: tail.ProofOf(head, data[max(0, len(data)-proofBytes):]), Offset: p.off, Seen: max(p.off, p.gen.Seen())}
	p.text = append(p.text, p.stamp...)
	p.text = append(p.text, " stdout F:"...)
	p.text = append(tagged(p.text, p.to), ' ')
	p.text = append(append(p.text, text...), '\n')
}

// jump goes on elsewhere.
func (p *piece) jump(g *tail.Generation, off int64) {
	p.gen, p.off = g, off
	p.to = &tail.Place{Identity: g.Identity(), Proof: g.Proof(off), Offset: off, Seen: max(off, g.Seen())}
}
