// Package decode turns the raw lines of a log file into the lines that a program wrote: Docker's json-file, CRI, and
// plain text, with the pieces into which runtimes cut long lines joined again.
//
// It works on byte slices of the caller's buffer and copies only where it must (escapes that grow, joined pieces). It
// loses nothing: a raw line that is not of its format comes out as it is, marked Malformed.
// It owns nothing; its only state is the pieces of unfinished lines, and Held tells from where a reader must start
// again to have them back after a crash.
package decode

import (
	"math"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// Std says where a program wrote a line.
type Std uint8

// The streams. A plain file does not tell.
const (
	None Std = iota
	Stdout
	Stderr
)

func (s Std) String() string { return [...]string{"", "stdout", "stderr"}[s] }

// Line is one line as the program wrote it, without its newline.
type Line struct {
	At        int64 // nanoseconds since 1970, UTC; 0 when the file does not tell
	Text      []byte
	Std       Std
	Malformed bool // the raw line was not of the format; Text is all of it
	Split     bool // longer than the bound: the rest follows as a line of its own
}

// Arena is where decoded bytes go that cannot alias the input. What was allocated stays valid until Reset.
type Arena struct{ buf []byte }

// Reset gives the memory back for reuse; slices handed out before are void.
func (a *Arena) Reset() { a.buf = a.buf[:0] }

// Copy gives a copy of b that stays valid until Reset.
func (a *Arena) Copy(b []byte) []byte { return a.copy(b) }

func (a *Arena) copy(parts ...[]byte) []byte {
	start := len(a.buf)
	for _, p := range parts {
		a.buf = append(a.buf, p...)
	}
	return a.buf[start:len(a.buf):len(a.buf)]
}

// Mark is a place in a stream: a generation of its file and an offset in it.
type Mark struct {
	Gen int64
	Off int64
}

// Before tells whether m lies before o.
func (m Mark) Before(o Mark) bool { return m.Gen < o.Gen || m.Gen == o.Gen && m.Off < o.Off }

// piece is one raw line decoded; partial when the runtime cut it and more follows.
type piece struct {
	at      int64
	text    []byte
	std     Std
	partial bool
}

// Decoder decodes the raw lines of one stream in order. It is not safe for concurrent use.
type Decoder struct {
	format container.LogFormat
	max    int
	held   [3]held // by Std: stdout and stderr may be cut in turns
	out    [2]Line
}

type held struct {
	open bool
	at   int64
	text []byte
	from Mark
}

// MaxLine is the bound on a joined line that the agent uses; what is longer is split.
const MaxLine = 1 << 20

// New makes a decoder whose lines have at most max bytes. An unknown format is plain.
func New(format container.LogFormat, max int) *Decoder { return &Decoder{format: format, max: max} }

// Next decodes one raw line, without its newline, that begins at from. The result holds zero to two lines and is valid
// until the next call; their Text aliases raw or arena.
func (d *Decoder) Next(raw []byte, from Mark, arena *Arena) []Line {
	var p piece
	ok := true
	switch d.format {
	case container.DockerJSON:
		p, ok = dockerJSON(raw, arena)
	case container.CRI:
		p, ok = cri(raw)
	default:
		p.text = raw
	}
	if !ok {
		d.out[0] = Line{Text: raw, Malformed: true}
		return d.out[:1]
	}
	h := &d.held[p.std]
	if !p.partial && !h.open { // nearly every line
		d.out[0] = Line{At: p.at, Std: p.std, Text: p.text}
		return d.out[:1]
	}
	return d.join(h, p, from, arena)
}

func (d *Decoder) join(h *held, p piece, from Mark, arena *Arena) []Line {
	n := 0
	if h.open && len(h.text)+len(p.text) > d.max {
		d.out[n] = Line{At: h.at, Std: p.std, Text: arena.copy(h.text), Split: true}
		n++
		h.open = false
	}
	if !h.open {
		h.open, h.at, h.text, h.from = true, p.at, h.text[:0], from
	}
	if p.partial {
		h.text = append(h.text, p.text...)
		return d.out[:n]
	}
	d.out[n] = Line{At: h.at, Std: p.std, Text: arena.copy(h.text, p.text)}
	h.close()
	return d.out[:n+1]
}

// close forgets the joined text, and its memory when it was large: an idle stream holds next to nothing.
func (h *held) close() {
	h.open = false
	if cap(h.text) > 64<<10 {
		h.text = nil
	}
	h.text = h.text[:0]
}

// Held gives the beginning of the oldest unfinished line: whoever decodes from there on has the same state again.
// ok is false when nothing is held.
func (d *Decoder) Held() (from Mark, ok bool) {
	from = Mark{math.MaxInt64, math.MaxInt64}
	for i := range d.held {
		if h := &d.held[i]; h.open && h.from.Before(from) {
			from, ok = h.from, true
		}
	}
	return from, ok
}

// Flush gives the unfinished lines as they are, because nothing will follow. The texts are the caller's.
func (d *Decoder) Flush() []Line {
	var out []Line
	for i := range d.held {
		if h := &d.held[i]; h.open {
			out = append(out, Line{At: h.at, Std: Std(i), Text: append([]byte(nil), h.text...)})
			h.close()
		}
	}
	return out
}
