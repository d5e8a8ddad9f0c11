package logship

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// replay reads lines again that a sink has had. It gives them to a cursor of its own, which is in no stream that is
// saved: they are shaped, sent and acknowledged as all others, and no position moves.
type replay struct {
	c     *cursor
	files []*tail.Past // to be read, oldest first
	ends  map[int64]int64
	upto  place // where the sink stands
	since int64
	timed bool // lines have times
	begun bool // a line that is not early was seen

	in      *bufio.Reader
	gen     *tail.Generation // of in; it has a place and an identity only
	off     int64
	queue   []rawLine // read by seek already
	stop    atomic.Bool
	skipped []string // files that could not be read
}

// rawLine is a line of a file that is read again.
type rawLine struct {
	text    []byte // valid until the next read
	newline int    // 0: the file ended without one
	gen     *tail.Generation
	off     int64
}

// newReplay makes the reader and its cursor for what sink has acknowledged of live. close it.
func newReplay(live *stream, of *cursor, since int64, finished func()) (*replay, error) {
	upto := of.sink.acked(of)
	files, err := live.series.History()
	if err != nil {
		return nil, fmt.Errorf("find the files of %s: %w", live.key, err)
	}
	s := &stream{key: live.key, src: live.src, owner: live.owner, nudge: finished}
	s.origin.Store(live.origin.Load())
	s.chain.Store(live.chain.Load())
	c := &cursor{stream: s, sink: of.sink, dec: decode.New(live.src.Format, decode.MaxLine), until: decode.Mark{Gen: math.MinInt64}}
	s.cursors = []*cursor{c}
	r := &replay{c: c, files: files, ends: map[int64]int64{upto.end.Gen: upto.end.Off}, upto: upto, since: since, timed: live.src.Format != container.Plain}
	c.replay = r
	if upto.left != nil {
		for _, l := range *upto.left {
			r.ends[l.seq] = l.place.Offset
		}
	}
	return r, nil
}

// only leaves out files for which no is true, those that were not written to since, and those that the sink has not
// reached.
func (r *replay) only(no func(tail.Identity) bool) {
	const margin = int64(2e9) // a line's time is taken before it is written, and a gzip header has whole seconds
	var keep []*tail.Past
	for _, f := range r.files {
		if f.Seq > r.upto.end.Gen || f.Changed.UnixNano() < r.since-margin || f.Seq == 0 && no(f.ID) {
			f.Close()
			continue
		}
		keep = append(keep, f)
	}
	r.files = keep
	for i, f := range keep { // the released ones lie before the first that is kept
		if f.Seq == 0 {
			f.Seq = int64(i - len(keep))
		}
	}
}

func (r *replay) close() {
	for _, f := range r.files {
		f.Close()
	}
	r.files, r.in = nil, nil
}

// early tells whether a decoded line is older than what is asked for. One that has no time follows the one before it.
func (r *replay) early(at int64) bool {
	if at == 0 {
		return r.timed && !r.begun
	}
	if at < r.since {
		return true
	}
	r.begun = true
	return false
}

// seek reads on to the first line that is not early; found is false when there is none. It keeps the shipper from
// reading through what is not sent.
func (r *replay) seek(ctx context.Context) (found bool, err error) {
	dec, arena := decode.New(r.c.stream.src.Format, decode.MaxLine), decode.Arena{}
	var queue []rawLine
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		l, ok := r.next()
		if !ok {
			return false, nil
		}
		if _, held := dec.Held(); !held {
			queue = queue[:0]
		}
		hit := false
		for _, d := range dec.Next(l.text, decode.Mark{Gen: l.gen.Seq, Off: l.off}, &arena) {
			hit = hit || !r.early(d.At)
		}
		arena.Reset()
		if _, held := dec.Held(); held || hit { // a line that was cut begins with its first piece
			l.text = bytes.Clone(l.text)
			queue = append(queue, l)
		}
		if hit {
			r.queue, r.begun = queue, false
			return true, nil
		}
	}
}

// next gives the next line of the files.
func (r *replay) next() (l rawLine, ok bool) {
	if len(r.queue) > 0 {
		l, r.queue = r.queue[0], r.queue[1:]
		return l, true
	}
	for {
		if r.in == nil && !r.open() {
			return l, false
		}
		text, err := r.raw()
		if err != nil && !errors.Is(err, io.EOF) {
			r.skipped = append(r.skipped, fmt.Sprintf("%s from byte %d on: %v", r.files[0].Path, r.off, err))
			text = nil
		}
		l = rawLine{text: text, gen: r.gen, off: r.off}
		r.off += int64(len(text))
		if whole, ended := bytes.CutSuffix(text, []byte("\n")); ended {
			l.text, l.newline = whole, 1
		}
		if err != nil {
			r.files[0].Close()
			r.files, r.in = r.files[1:], nil
		}
		if len(text) > 0 {
			return l, true
		}
	}
}

// raw reads to the next newline, or rawLimit bytes.
func (r *replay) raw() ([]byte, error) {
	text, err := r.in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return text, err
	}
	limit := rawLimit
	if !r.timed {
		limit = decode.MaxLine
	}
	long := bytes.Clone(text)
	for errors.Is(err, bufio.ErrBufferFull) && len(long) < limit {
		text, err = r.in.ReadSlice('\n')
		long = append(long, text...)
	}
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return long, err
}

// open begins the next file that can be read.
func (r *replay) open() bool {
	for ; len(r.files) > 0; r.files = r.files[1:] {
		f := r.files[0]
		in, err := f.Reader()
		if err != nil {
			r.skipped = append(r.skipped, err.Error())
			f.Close()
			continue
		}
		if end, bounded := r.ends[f.Seq]; bounded && f.Seq > 0 {
			in = io.LimitReader(in, end)
		}
		r.in = bufio.NewReaderSize(in, 64<<10)
		r.gen, r.off = &tail.Generation{Seq: f.Seq, ID: f.ID}, 0
		return true
	}
	return false
}

// read fills b, for the cursor.
func (r *replay) read(b *batch, at int64) outcome {
	for n := 0; n < readBytes && len(b.records) < batchRecords; {
		if r.stop.Load() {
			return r.finish()
		}
		l, ok := r.next()
		if !ok {
			r.rest(b, at)
			return r.finish()
		}
		n += len(l.text)
		from, before := len(b.buf), len(b.records)
		text := l.text
		switch {
		case len(text) <= cap(b.buf)-from:
			b.buf = append(b.buf, text...)
			text = b.buf[from:]
		case b.empty():
			text = bytes.Clone(text)
		default:
			l.text = bytes.Clone(text)
			r.queue, b.closed = append([]rawLine{l}, r.queue...), true
			return more
		}
		r.c.gen, r.c.off = l.gen, l.off
		r.c.line(b, text, 0, l.newline, at)
		r.c.off += int64(len(text) + l.newline)
		if len(b.records) == before { // nobody refers to it
			b.buf = b.buf[:from]
		}
	}
	return more
}

// rest sends what is held at the end, unless the sink has not had that either: then it is still to come.
func (r *replay) rest(b *batch, at int64) {
	c := r.c
	had := func(from decode.Mark) bool { return !r.upto.from.Before(r.upto.end) || from.Before(r.upto.from) }
	if from, held := c.dec.Held(); held && had(from) {
		for _, l := range c.dec.Flush() {
			if m := c.here(0); c.state != nil {
				c.shape(b, l, m.end, m, at)
			} else {
				c.add(b, l, m, at)
			}
		}
	}
	if c.state == nil {
		return
	}
	outs := c.state.Flush(at, &b.arena)
	for i := range outs {
		if outs[i].Summary || had(outs[i].From) {
			c.put(b, &outs[i], c.here(0), at)
		}
	}
}

// finish ends the cursor; what is on its way is still delivered.
func (r *replay) finish() outcome {
	r.close()
	r.c.done.Store(true)
	r.c.check()
	return wait
}
