// Package expo writes metrics as Prometheus reads them: the text format 0.0.4 and OpenMetrics 1.0.
//
// An Encoder appends to one buffer and does not allocate while the buffer is large enough; what is the same at each
// scrape (a container's labels) is rendered once by AppendLabel and handed in as Labels. The gzip form is written at once,
// without compressing anything at the scrape: see deflater.
package expo

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

// Format is an exposition format.
type Format uint8

// The formats.
const (
	Text        Format = iota // text/plain; version=0.0.4
	OpenMetrics               // application/openmetrics-text; version=1.0.0
)

// ContentType is the HTTP header of an answer in this format.
func (f Format) ContentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// Family is what all series of one name share.
type Family struct {
	Name string
	Help string
	Type stat.Type
	Unit string // "seconds", "bytes" or empty; only OpenMetrics shows it, and only when Name ends in it
}

// Encoder writes families one after the other. It is not safe for concurrent use. The zero value is ready after Reset.
type Encoder struct {
	format  Format
	buf     []byte // the text, or in gzip form the last piece of it
	before  int    // how much text came before buf
	family  Family
	created []byte // the name of the family's creation times; empty where it has none
	started bool
	samples int
	gzip    bool
	zip     deflater
}

// Reset begins a new page in buf, whose contents are overwritten.
func (e *Encoder) Reset(f Format, buf []byte) {
	*e = Encoder{format: f, buf: buf[:0], zip: e.zip, created: e.created[:0]}
}

// ResetGzip begins a new page in buf in gzip form: Finish gives what a compressor would make of the page. text is memory
// to work in; PieceSize is enough.
func (e *Encoder) ResetGzip(f Format, buf, text []byte) {
	e.Reset(f, text)
	e.gzip = true
	e.zip.reset(buf)
}

// PieceSize is how much text an Encoder needs at a time in gzip form, unless single lines are longer than some kilobytes.
const PieceSize = 40 << 10

// Family begins a family. Its header is written with its first sample, so a family without samples leaves no trace.
// Each name may be begun once a page.
func (e *Encoder) Family(f Family) {
	e.family, e.started, e.created = f, false, e.created[:0]
	if base, ok := strings.CutSuffix(f.Name, "_total"); ok && e.format == OpenMetrics && f.Type == stat.TypeCounter {
		e.created = append(append(e.created, base...), "_created"...)
	}
}

// Sample writes one series of the family. l may be nil, and extra, rendered labels without braces, empty; extra must not
// change before Finish. In OpenMetrics the creation time of a counter follows, if l has one.
func (e *Encoder) Sample(l *Labels, extra []byte, value float64) {
	if !e.started {
		e.header()
		e.started = true
	}
	e.samples++
	start := len(e.buf)
	b := append(e.buf, e.family.Name...)
	b, at := appendLabels(b, l, extra)
	b = appendValue(b, value)
	e.buf = append(b, '\n')
	if e.gzip {
		e.zip.sample(&e.zip.value, e.before+start, e.buf[start:], len(e.family.Name)+1, l, extra, at-start)
	}
	if l != nil && len(l.created) > 0 && len(e.created) > 0 {
		e.creation(l, extra)
	}
	if e.gzip && len(e.buf) > window {
		e.piece()
	}
}

// creation writes since when the series of l counts.
func (e *Encoder) creation(l *Labels, extra []byte) {
	start := len(e.buf)
	b := append(e.buf, e.created...)
	b, at := appendLabels(b, l, extra)
	b = append(b, l.created...)
	e.buf = append(b, '\n')
	if e.gzip {
		e.zip.sample(&e.zip.creation, e.before+start, e.buf[start:], len(e.created)+1, l, extra, at-start)
	}
}

// appendLabels writes the labels in braces, if there are any, and a space. at is where the value comes.
func appendLabels(b []byte, l *Labels, extra []byte) (out []byte, at int) {
	if (l == nil || len(l.text) == 0) && len(extra) == 0 {
		return append(b, ' '), len(b) + 1
	}
	b = append(b, '{')
	if l != nil {
		b = append(b, l.text...)
		if len(l.text) > 0 && len(extra) > 0 {
			b = append(b, ',')
		}
	}
	b = append(b, extra...)
	b = append(b, "} "...)
	return b, len(b)
}

// piece takes the text so far into account and makes room.
func (e *Encoder) piece() {
	e.zip.account(e.buf)
	e.before += len(e.buf)
	e.buf = e.buf[:0]
}

// Finish ends the page and gives it. It stays valid until the buffer is used again.
func (e *Encoder) Finish() []byte {
	start := len(e.buf)
	if e.format == OpenMetrics {
		e.buf = append(e.buf, "# EOF\n"...)
	}
	if !e.gzip {
		return e.buf
	}
	e.zip.text(e.buf[start:])
	e.piece()
	return e.zip.finish()
}

// Text gives the working memory back, which may have grown.
func (e *Encoder) Text() []byte { return e.buf[:0] }

// Samples tells how many series the page has.
func (e *Encoder) Samples() int { return e.samples }

// header writes HELP, TYPE and UNIT. OpenMetrics demands that a counter's series end in _total and names the family
// without it. A counter with another name (cAdvisor's container_memory_failcnt) is of type unknown there, because its
// series must have the same name in both formats: dashboards ask for it.
func (e *Encoder) header() {
	name, typ := e.family.Name, string(e.family.Type)
	if e.format == OpenMetrics && e.family.Type == stat.TypeCounter {
		base, ok := strings.CutSuffix(name, "_total")
		if ok {
			name = base
		} else {
			typ = "unknown"
		}
	}
	start := len(e.buf)
	b := append(e.buf, "# HELP "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = appendEscaped(b, e.family.Help, e.format == OpenMetrics)
	b = append(b, "\n# TYPE "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = append(b, typ...)
	b = append(b, '\n')
	if unit := e.family.Unit; e.format == OpenMetrics && unit != "" && strings.HasSuffix(name, "_"+unit) {
		b = append(b, "# UNIT "...)
		b = append(b, name...)
		b = append(b, ' ')
		b = append(b, unit...)
		b = append(b, '\n')
	}
	e.buf = b
	if e.gzip {
		e.zip.text(b[start:])
	}
}

// AppendLabel appends name="value", after a comma when b is not empty. The value may hold anything: quotes, backslashes
// and line feeds are escaped, bytes that are not UTF-8 become U+FFFD, because a scraper refuses the whole page for one.
func AppendLabel(b []byte, name, value string) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, name...)
	b = append(b, '=', '"')
	b = appendEscaped(b, value, true)
	return append(b, '"')
}

func appendEscaped(b []byte, s string, quotes bool) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b = append(b, '\\', '\\')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '"' && quotes:
			b = append(b, '\\', '"')
		default:
			b = append(b, c)
		}
	}
	return b
}

func appendValue(b []byte, v float64) []byte {
	const exact = 1 << 53
	switch {
	case v == math.Trunc(v) && math.Abs(v) < exact:
		return strconv.AppendInt(b, int64(v), 10)
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	case math.IsNaN(v):
		return append(b, "NaN"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
