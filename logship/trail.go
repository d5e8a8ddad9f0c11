package logship

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// trailing is a generation that the cursor has left for the next one while somebody may still write to it: a worker
// that was not told to reopen its log, or ends its last request first. It is read on until nobody has it open.
type trailing struct {
	gen   *tail.Generation
	start int64 // where the cursor left it
	off   int64
	dec   *decode.Decoder
}

// left is a place in a trailing generation, as it is saved.
type left struct {
	seq   int64
	place tail.Place
}

// leave goes on from the current generation, which is busy, to the next.
func (c *cursor) leave() { c.follow(c.gen, c.off) }

func (c *cursor) follow(g *tail.Generation, off int64) {
	c.trail = append(c.trail, &trailing{gen: g, start: off, off: off, dec: decode.New(c.stream.src.Format, decode.MaxLine)})
	c.relist()
}

// retrail follows what an earlier run had left.
func (c *cursor) retrail(places []tail.Place) {
	for _, p := range places {
		g, found, lost := c.stream.series.Find(p)
		if !found {
			c.lose(lost)
			continue
		}
		c.follow(g, p.Offset)
	}
}

// trailing gives what is known of a generation that was left, or nil.
func (c *cursor) trailing(g *tail.Generation) *trailing {
	for _, t := range c.trail {
		if t.gen == g {
			return t
		}
	}
	return nil
}

// trails tells whether something of g is not acknowledged yet, or may still come. Safe for concurrent use.
func (c *cursor) trails(g *tail.Generation) bool {
	of := func(l *[]left) bool {
		return l != nil && slices.ContainsFunc(*l, func(l left) bool { return l.seq == g.Seq })
	}
	now := c.left.Load()
	if c.inflight.Load() == 0 { // asked after the list: all that the list has passed over is acknowledged
		return of(now)
	}
	return of(now) || of(c.sink.acked(c).left)
}

// relist notes the places of all trailing generations.
func (c *cursor) relist() {
	if len(c.trail) == 0 {
		c.left.Store(nil)
		return
	}
	list := make([]left, 0, len(c.trail))
	for _, t := range c.trail {
		at := t.off
		if from, held := t.dec.Held(); held {
			at = from.Off
		}
		if p, ok := c.stream.place(decode.Mark{Gen: t.gen.Seq, Off: at}); ok {
			list = append(list, left{t.gen.Seq, p})
		}
	}
	c.left.Store(&list)
}

// late reads what was added to trailing generations, and forgets those that cannot grow any more.
func (c *cursor) late(b *batch, at int64) (outcome, error) {
	for _, t := range slices.Clone(c.trail) {
		busy, cut := t.gen.Busy(), t.gen.Cut()
		space := b.buf[len(b.buf):cap(b.buf)]
		space = space[:min(len(space), readBytes)]
		n, err := t.gen.ReadAt(space, t.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return wait, fmt.Errorf("read what follows in an older generation of %s: %w", c.stream.src.Path, err)
		}
		data, ended := space[:n], n < len(space) && !busy
		if !cut && n > 0 {
			before := len(b.records)
			used := c.lateLines(b, t, data, ended || n == len(space) && b.empty(), at)
			b.buf = b.buf[:len(b.buf)+used]
			t.off += int64(used)
			if used == 0 && n == len(space) { // a line that is longer than what is free
				b.closed = true
				return more, nil
			}
			c.relist()
			if len(b.records) > before {
				b.marks[len(b.marks)-1].left = c.left.Load()
			}
			if used > 0 {
				return more, nil
			}
		}
		if ended || cut {
			for _, l := range t.dec.Flush() {
				c.emitLate(b, l, c.here(0), at)
			}
			c.trail = slices.DeleteFunc(c.trail, func(o *trailing) bool { return o == t })
			c.relist()
		}
	}
	return wait, nil
}

// lateLines decodes the lines in data; rest tells that the unfinished one at the end is a line too.
func (c *cursor) lateLines(b *batch, t *trailing, data []byte, rest bool, at int64) (used int) {
	for used < len(data) && len(b.records) < batchRecords {
		n, newline := bytes.IndexByte(data[used:], '\n'), 1
		if n < 0 && (!rest || used > 0 && len(data) == readBytes) {
			break
		}
		if n < 0 {
			n, newline = len(data)-used, 0
		}
		for _, l := range t.dec.Next(data[used:used+n], decode.Mark{Gen: t.gen.Seq, Off: t.off + int64(used)}, &b.arena) {
			c.emitLate(b, l, c.here(n+newline), at)
		}
		c.sink.total.readBytes.Add(uint64(n + newline))
		used += n + newline
	}
	return used
}

func (c *cursor) emitLate(b *batch, l decode.Line, m mark, at int64) {
	if c.state != nil {
		c.shapeLate(b, l, m, at)
		return
	}
	c.emit(b, l, m, at)
}

// here is the mark of a record that does not move the cursor itself.
func (c *cursor) here(bytes int) mark {
	at := decode.Mark{Gen: c.gen.Seq, Off: c.off}
	m := mark{cursor: c, end: at, from: at, bytes: bytes}
	if m.end.Before(c.until) {
		m.end = c.until
	}
	if from, held := c.dec.Held(); held {
		m.from = from
	}
	return m
}
