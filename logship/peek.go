package logship

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// peekEvery is how often Peek looks for new lines: it is for eyes.
const peekEvery = 100 * time.Millisecond

// peekBytes is from how far before its end the newest file is read for its last lines.
const peekBytes = 4 << 20

// Peek shows the last lines of one log and, with follow, those that come, over rotations, until ctx ends. It reads the
// files itself and moves no position. show is called for each line in turn.
func Peek(ctx context.Context, st StreamStatus, last int, follow bool, show func(at time.Time, line string)) error {
	none := func(tail.Identity) bool { return false }
	s := tail.NewSeries(tail.Root(st.Root), st.File, nil, false, none, nil)
	defer s.Close(false)
	if _, err := s.Look(); err != nil {
		return err
	}
	p := &peeker{dec: decode.New(container.LogFormat(st.Format), decode.MaxLine), keep: last, show: show}
	if p.gen = s.Last(); p.gen != nil {
		if err := p.begin(); err != nil {
			return err
		}
	}
	p.flush()
	for follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(peekEvery):
		}
		if _, err := s.Look(); err != nil {
			return err
		}
		if p.gen == nil {
			p.gen = s.First()
		}
		if err := p.more(); err != nil {
			return err
		}
	}
	return nil
}

// peeker is a reader that nothing depends on.
type peeker struct {
	gen   *tail.Generation
	off   int64
	dec   *decode.Decoder
	arena decode.Arena
	keep  int // lines to hold back while the end is looked for; -1: show at once
	held  []peeked
	show  func(time.Time, string)
}

type peeked struct {
	at   time.Time
	line string
}

// begin reads the last lines of the current generation.
func (p *peeker) begin() error {
	size, _, err := p.gen.Stat()
	if err != nil {
		return err
	}
	if p.off = max(0, size-peekBytes); p.off > 0 { // in the middle of a line
		var b [64 << 10]byte
		n, err := p.gen.ReadAt(b[:], p.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		p.off += int64(bytes.IndexByte(b[:n], '\n') + 1)
	}
	return p.read()
}

// more reads what has come, from one generation to the next.
func (p *peeker) more() error {
	for p.gen != nil {
		next := p.gen.Next()
		if err := p.read(); err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		p.gen, p.off = next, 0
	}
	return nil
}

// read shows the whole lines after the offset.
func (p *peeker) read() error {
	buf := make([]byte, decode.MaxLine)
	for {
		n, err := p.gen.ReadAt(buf, p.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		used := 0
		for {
			end := bytes.IndexByte(buf[used:n], '\n')
			if end < 0 && used == 0 && n == len(buf) {
				end = n - 1 // longer than any line may be
			}
			if end < 0 {
				break
			}
			for _, l := range p.dec.Next(buf[used:used+end], decode.Mark{Gen: p.gen.Seq, Off: p.off + int64(used)}, &p.arena) {
				p.line(l)
			}
			p.arena.Reset()
			used += end + 1
		}
		if used == 0 {
			return nil
		}
		p.off += int64(used)
	}
}

func (p *peeker) line(l decode.Line) {
	out := peeked{line: string(l.Text)}
	if l.At != 0 {
		out.at = time.Unix(0, l.At)
	}
	if p.keep < 0 {
		p.show(out.at, out.line)
		return
	}
	if p.held = append(p.held, out); len(p.held) > p.keep {
		p.held = p.held[1:]
	}
}

func (p *peeker) flush() {
	for _, h := range p.held {
		p.show(h.at, h.line)
	}
	p.held, p.keep = nil, -1
}
