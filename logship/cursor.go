package logship

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// quiet is how long a generation must not have been written to before the next one is begun: workers of one program
// reopen their log one after the other.
const quiet = 200 * time.Millisecond

// cursor is one sink's place in one stream. Its reading side belongs to the shipper's reader.
type cursor struct {
	stream *stream
	sink   *shipper
	dec    *decode.Decoder
	shaper

	gen    *tail.Generation // nil: not begun
	off    int64
	before []byte      // the last bytes before off: another content there means that the file was truncated
	until  decode.Mark // lines that end here or before were delivered by an earlier run
	done   atomic.Bool // read to the end of an ended stream

	replay *replay // set where lines are sent again; then there is no series

	trail []*trailing // generations before gen that may still grow
	left  atomic.Pointer[[]left]

	queued   bool // in the shipper's queue; guarded by its lock
	inflight atomic.Int64
	finished atomic.Bool // done, and all of it acknowledged

	// acked is where the stream stands for this sink; guarded by the shipper's lock.
	acked place
	count counts
	rate  rate // acknowledged records
}

// place is an acknowledged mark; see mark.
type place struct {
	end, from decode.Mark
	left      *[]left
}

func (m *mark) place() place { return place{m.end, m.from, m.left} }

// counts is the ledger of one stream and sink since the agent's start.
type counts struct {
	read, sent, acked     atomic.Uint64                 // records
	dropped               [shape.Over + 1]atomic.Uint64 // records that a rule kept from the sink, by reason
	lost                  atomic.Uint64                 // bytes destroyed unread, as far as they are known
	whole                 atomic.Uint64                 // generations of which nothing was read; lost has what is known of them
	doubled               atomic.Uint64                 // records sent twice that may have arrived twice
	malformed, split      atomic.Uint64
	rejected              atomic.Uint64 // records refused for good, kept as dead letters
	readBytes, ackedBytes atomic.Uint64
}

// outcome of one read.
type outcome int

const (
	wait  outcome = iota // at the end, until something changes
	more                 // there is more, or the batch is full
	later                // look again after quiet
)

// start puts the cursor where the last run was acknowledged, or at the beginning. seen is what that run had seen.
func (c *cursor) start(saved ledger.Position, known bool, seen []ledger.Seen) {
	if c.gen, c.off = c.stream.series.First(), 0; known {
		var found bool
		var lost int64
		c.gen, found, lost = c.stream.series.Find(saved.Place)
		if !c.excluded() { // else it was never owed a line
			c.lose(c.missed(saved, found, lost, seen))
		}
		if found {
			c.off = saved.Offset
			c.until = decode.Mark{Gen: c.gen.Seq, Off: c.off}
			c.rewind(saved.From)
			c.retrail(saved.Left)
		}
	}
	if c.gen != nil {
		at := decode.Mark{Gen: c.gen.Seq, Off: c.off}
		c.acked = place{end: at, from: at, left: c.left.Load()}
		if at.Before(c.until) {
			c.acked.end = c.until
		}
	}
}

// missed adds to what is known to be lost behind a saved place the generations after it that were seen then and are not
// there now.
func (c *cursor) missed(saved ledger.Position, found bool, lost int64, seen []ledger.Seen) int64 {
	own := lost
	for _, g := range seen {
		switch {
		case saved.Gen == 0: // of a version that did not count
		case g.Gen == saved.Gen && !found:
			lost += max(0, g.Seen-saved.Offset-own)
		case g.Gen > saved.Gen && (g.Cut || !c.stream.series.Contains(g.Place)):
			lost += g.Seen
		}
	}
	return lost
}

// rewind goes back to where the oldest unfinished line began, when that is still there.
func (c *cursor) rewind(from *tail.Place) {
	if from == nil {
		return
	}
	if g, found, _ := c.stream.series.Find(*from); found {
		c.gen, c.off = g, from.Offset
	}
}

func (c *cursor) lose(n int64) {
	c.count.lost.Add(uint64(max(0, n)))
	c.sink.total.lost.Add(uint64(max(0, n)))
}

func (c *cursor) loseWhole(generations int) {
	c.count.whole.Add(uint64(generations))
	c.sink.total.whole.Add(uint64(generations))
}

// read fills b with what the stream has, at most readBytes of it.
func (c *cursor) read(b *batch, at int64) (outcome, error) {
	if c.done.Load() {
		return wait, nil
	}
	if c.replay != nil {
		return c.replay.read(b, at), nil
	}
	if c.gen == nil {
		if c.gen = c.stream.series.First(); c.gen == nil {
			return c.end(b, at)
		}
	}
	if o, err := c.late(b, at); o == more || err != nil {
		return o, err
	}
	for {
		if c.gen.Cut() {
			c.lose(c.gen.Seen() - c.off)
			if c.off == 0 && c.gen.Seen() > 0 {
				c.loseWhole(1)
			}
			c.enter(c.gen.Next())
			continue // that may have been cut too
		}
		if next := c.gen.Next(); next != nil && c.gen.Rescued(c.off) {
			c.lose(c.gen.Seen() - c.off) // it had more than the copy has
			c.enter(next)
			continue
		}
		data, atEnd, err := c.fetch(b)
		if errors.Is(err, errTruncated) {
			c.stream.series.Truncated(c.gen)
			continue
		}
		if err != nil {
			return wait, fmt.Errorf("read %s: %w", c.stream.src.Path, err)
		}
		used := c.lines(b, data, at)
		if used > 0 {
			c.pass(b, data[:used])
			return more, nil
		}
		if !atEnd { // one line fills all the space there was
			if !b.empty() {
				b.closed = true
				return more, nil
			}
			return c.giant(b, at)
		}
		if o := c.turn(b, data, at); o != again {
			return o, nil
		}
	}
}

const again outcome = -1

var errTruncated = errors.New("content before the offset has changed")

// fetch reads from the offset into the free space of b. atEnd tells that the file has no more.
func (c *cursor) fetch(b *batch) (data []byte, atEnd bool, err error) {
	space := b.buf[len(b.buf):cap(b.buf)]
	space = space[:min(len(space), readBytes+len(c.before))]
	if t := c.trailing(c.gen); t != nil { // decoded again for what was held; what follows is read as late
		space = space[:min(int64(len(space)), t.start-c.off+int64(len(c.before)))]
		data, _, err = c.readInto(space)
		return data, true, err
	}
	return c.readInto(space)
}

func (c *cursor) readInto(space []byte) (data []byte, atEnd bool, err error) {
	n, err := c.gen.ReadAt(space, c.off-int64(len(c.before)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	if n < len(c.before) || !bytes.Equal(space[:len(c.before)], c.before) || c.gen.Cut() {
		return nil, false, errTruncated
	}
	return space[len(c.before):n], n < len(space), nil
}

// lines decodes the whole lines in data and tells how many bytes they took.
func (c *cursor) lines(b *batch, data []byte, at int64) (used int) {
	for len(b.records) < batchRecords {
		n := bytes.IndexByte(data[used:], '\n')
		if n < 0 {
			break
		}
		c.line(b, data[used:used+n], used, 1, at)
		used += n + 1
	}
	return used
}

// line decodes one raw line that begins used bytes after the offset and is followed by newline bytes.
func (c *cursor) line(b *batch, raw []byte, used, newline int, at int64) {
	start := decode.Mark{Gen: c.gen.Seq, Off: c.off + int64(used)}
	end := decode.Mark{Gen: c.gen.Seq, Off: start.Off + int64(len(raw)+newline)}
	lines := c.dec.Next(raw, start, &b.arena)
	c.sink.total.readBytes.Add(uint64(len(raw) + newline))
	for i, l := range lines {
		if c.replay != nil && c.replay.early(l.At) {
			continue
		}
		m := mark{cursor: c, end: end, from: end, bytes: len(raw) + newline}
		if i < len(lines)-1 {
			// The first part of a split line: what follows is still unfinished and begins with this raw line.
			m.end, m.from, m.bytes = start, start, 0
		}
		if from, held := c.dec.Held(); held {
			m.from = from
			if m.end == end && l.Split {
				m.end = start
			}
		}
		if c.state != nil {
			c.shape(b, l, start, m, at)
			continue
		}
		c.add(b, l, m, at)
	}
}

// add puts a decoded line into the batch unless an earlier run has delivered it.
func (c *cursor) add(b *batch, l decode.Line, m mark, at int64) {
	if !c.until.Before(m.end) {
		return
	}
	c.emit(b, l, m, at)
}

func (c *cursor) emit(b *batch, l decode.Line, m mark, at int64) {
	var k sink.Key
	if l.At == 0 {
		l.At = at
	} else {
		k = c.key(m)
		if l.Split {
			k.Off = ^k.Off // it begins where the line before ended
		}
	}
	c.record(b, sink.Record{At: l.At, Std: l.Std, Line: l.Text, Key: k}, m, l.Malformed, l.Split)
}

// record appends r, of this cursor's stream, to the batch.
func (c *cursor) record(b *batch, r sink.Record, m mark, malformed, split bool) {
	m.left = c.left.Load()
	if malformed {
		c.sink.total.malformed.Add(1)
	}
	if split {
		c.sink.total.split.Add(1)
	}
	c.count.read.Add(1)
	c.sink.total.read.Add(1)
	c.inflight.Add(1)
	r.Origin = c.stream.origin.Load()
	if r.Origin.Path != "" {
		r.Std = decode.None // of a spool's frame
	}
	b.records = append(b.records, r)
	b.marks = append(b.marks, m)
}

// key tells a record by its file and where its raw line ended, or began when only its first part is meant.
func (c *cursor) key(m mark) sink.Key {
	if c.gen == nil || m.end.Gen != c.gen.Seq {
		return sink.Key{}
	}
	return sink.Key{File: c.gen.ID.Ino ^ uint64(c.gen.ID.Birth)<<20, Off: m.end.Off}
}

// pass moves the offset over data, which lies at the end of b's buffer.
func (c *cursor) pass(b *batch, data []byte) {
	if space := b.buf[len(b.buf):cap(b.buf)]; len(data)+len(c.before) <= len(space) {
		b.buf = b.buf[:len(b.buf)+len(c.before)+len(data)]
	}
	c.moved(data)
}

func (c *cursor) moved(data []byte) {
	c.off += int64(len(data))
	c.before = append(c.before, data[max(0, len(data)-64):]...)
	if n := len(c.before) - 64; n > 0 {
		c.before = append(c.before[:0], c.before[n:]...)
	}
}

// giant reads a line that is longer than one read, in memory of its own. What exceeds rawLimit, or the bound of a
// plain line, is cut there and the rest is a line of its own.
func (c *cursor) giant(b *batch, at int64) (outcome, error) {
	limit := rawLimit
	if c.stream.src.Format == container.Plain {
		limit = decode.MaxLine
	}
	for size := 4 * readBytes; ; size *= 2 {
		size = min(size, limit+1)
		data, atEnd, err := c.readInto(make([]byte, size+len(c.before)))
		if errors.Is(err, errTruncated) {
			c.stream.series.Truncated(c.gen)
			return more, nil
		}
		if err != nil {
			return wait, fmt.Errorf("read %s: %w", c.stream.src.Path, err)
		}
		n, newline := bytes.IndexByte(data, '\n'), 1
		switch {
		case n >= 0:
		case len(data) > limit:
			n, newline = limit, 0
			c.sink.total.split.Add(1)
		case atEnd: // the end of the line is not written yet, or never will be
			if o := c.turn(b, data, at); o != again {
				return o, nil
			}
			return more, nil
		default:
			continue
		}
		c.line(b, data[:n], 0, newline, at)
		c.moved(data[:n+newline])
		return more, nil
	}
}

// turn decides what to do at the end of a generation; rest is the unfinished line there.
func (c *cursor) turn(b *batch, rest []byte, at int64) outcome {
	next, ended := c.gen.Next(), c.stream.ended.Load()
	if c.gen.Cut() {
		return again
	}
	if next != nil && c.trailing(c.gen) != nil {
		c.enter(next)
		return again
	}
	if next == nil && !ended || next != nil && next.Seen() == 0 && next.Next() == nil && !ended {
		return wait
	}
	busy := c.gen.Busy() // asked before the size: what nobody writes to does not grow
	size, changed, err := c.gen.Stat()
	if err == nil && size > c.off+int64(len(rest)) {
		return again
	}
	if age := time.Since(changed); busy && age >= 0 && age < quiet && (next == nil || next.Next() == nil) {
		return later
	}
	if busy && next != nil {
		c.leave()
		c.enter(next)
		return again
	}
	if len(rest) > 0 {
		c.line(b, rest, 0, 0, at)
		c.pass(b, rest)
	}
	short := c.gen.Rescued(c.off)
	if next == nil {
		o, _ := c.end(b, at)
		if short && c.done.Load() {
			c.lose(c.gen.Seen() - c.off)
		}
		return o
	}
	if short {
		c.lose(c.gen.Seen() - c.off)
	}
	c.enter(next)
	return again
}

func (c *cursor) enter(g *tail.Generation) { c.gen, c.off, c.before = g, 0, c.before[:0] }

// end finishes a stream that nobody writes to any more: what is held comes out as it is.
func (c *cursor) end(b *batch, at int64) (outcome, error) {
	if !c.stream.ended.Load() {
		return wait, nil
	}
	if len(c.trail) > 0 {
		return later, nil
	}
	for _, l := range c.dec.Flush() {
		end := c.acked.end
		if c.gen != nil {
			end = decode.Mark{Gen: c.gen.Seq, Off: c.off}
		}
		c.until = decode.Mark{} // what is held was never delivered
		if m := (mark{cursor: c, end: end, from: end}); c.state != nil {
			c.shape(b, l, end, m, at)
		} else {
			c.add(b, l, m, at)
		}
	}
	if c.state != nil {
		c.give(b, c.state.Flush(at, &b.arena), at)
	}
	c.done.Store(true)
	c.check()
	return wait, nil
}

// check finishes the cursor when everything was read and acknowledged. Reader and deliverer both call it.
func (c *cursor) check() {
	if c.done.Load() && c.inflight.Load() == 0 && !c.finished.Swap(true) {
		c.stream.nudge()
	}
}
