package decode

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// dockerPiece is the size at which Docker cuts a line (daemon/logger/copier.go, defaultBufSize). A shorter text
// without a final newline is the end of a program's output, not a piece: the next text is a new line.
const dockerPiece = 16 << 10

// dockerJSON reads {"log":"text\n","stream":"stdout","time":"..."} as encoding/json would, other keys passed over.
// A text without escapes and with valid UTF-8 aliases raw.
func dockerJSON(raw []byte, arena *Arena) (piece, bool) {
	if p, ok := usual(raw, arena); ok {
		return p, true
	}
	var p piece
	s := scanner{b: raw}
	s.space()
	if !s.take('{') {
		return p, false
	}
	seen, ended := false, false
	for s.space(); !s.take('}'); s.space() {
		if seen && !s.take(',') {
			return p, false
		}
		seen = true
		s.space()
		key, ok := s.text(arena)
		if !ok {
			return p, false
		}
		s.space()
		if !s.take(':') {
			return p, false
		}
		s.space()
		switch string(key) {
		case "log":
			if p.text, ended, ok = s.logText(arena); !ok {
				return p, false
			}
		case "stream":
			v, ok := s.text(arena)
			if !ok {
				return p, false
			}
			p.std = stdOf(v)
		case "time":
			v, ok := s.text(arena)
			if !ok {
				return p, false
			}
			if p.at, ok = parseTime(v); !ok {
				return p, false
			}
		default:
			if !s.skip(0) {
				return p, false
			}
		}
	}
	s.space()
	if s.i != len(s.b) {
		return p, false
	}
	p.partial = !ended && len(p.text) >= dockerPiece
	return p, true
}

// usual reads what Docker writes nearly always: these members in this order, without spaces. ok false says only that it
// is something else.
func usual(raw []byte, arena *Arena) (p piece, ok bool) {
	const (
		log    = `{"log":`
		stdout = `,"stream":"stdout","time":"`
		stderr = `,"stream":"stderr","time":"`
		end    = `"}`
	)
	if len(raw) < len(log)+len(stdout)+len(end) || string(raw[:len(log)]) != log || string(raw[len(raw)-len(end):]) != end {
		return p, false
	}
	s := scanner{b: raw, i: len(log)}
	text, ended, ok := s.logText(arena)
	rest := raw[s.i:]
	if !ok || len(rest) < len(stdout)+len(end) {
		return p, false
	}
	switch string(rest[:len(stdout)]) {
	case stdout:
		p.std = Stdout
	case stderr:
		p.std = Stderr
	default:
		return p, false
	}
	p.at, ok = parseTime(rest[len(stdout) : len(rest)-len(end)])
	p.text, p.partial = text, !ended && len(text) >= dockerPiece
	return p, ok
}

func stdOf(v []byte) Std {
	switch string(v) {
	case "stdout":
		return Stdout
	case "stderr":
		return Stderr
	}
	return None
}

// scanner walks over one JSON text.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// text reads a JSON string.
func (s *scanner) text(arena *Arena) ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	n := plain(s.b[s.i:])
	return s.textFrom(n, arena)
}

// textFrom reads on in a JSON string whose first n bytes are plain.
func (s *scanner) textFrom(n int, arena *Arena) ([]byte, bool) {
	rest := s.b[s.i:]
	if n < len(rest) && rest[n] == '"' {
		s.i += n + 1
		return rest[:n:n], true
	}
	return s.escaped(n, arena)
}

// logText reads a JSON string and takes the final newline off. That newline is nearly always the only escape, so the
// text before it needs no copy.
func (s *scanner) logText(arena *Arena) (text []byte, ended, ok bool) {
	if !s.take('"') {
		return nil, false, false
	}
	rest := s.b[s.i:]
	n := plain(rest)
	if bytes.HasPrefix(rest[n:], []byte(`\n"`)) {
		s.i += n + 3
		return rest[:n:n], true, true
	}
	text, ok = s.textFrom(n, arena)
	if n := len(text); n > 0 && text[n-1] == '\n' {
		return text[:n-1], true, ok
	}
	return text, false, ok
}

// plain gives how many bytes from the start of b stand for themselves inside quotes: up to a quote, an escape, a control
// character or a byte that is no UTF-8.
func plain(b []byte) int {
	n := 0
	for {
		n += ascii(b[n:])
		if n == len(b) || b[n] < utf8.RuneSelf {
			return n
		}
		for n < len(b) && b[n] >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(b[n:])
			if r == utf8.RuneError && size == 1 {
				return n
			}
			n += size
		}
	}
}

// ascii is plain up to the first byte that is not ASCII, eight bytes at a time.
func ascii(b []byte) (n int) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; len(b)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		// A byte that stops us leaves its top bit set in one of these. What it borrows changes later bytes only, and the
		// first is what counts.
		if stop := (w | (w - ones*0x20) | (w ^ ones*'"' - ones) | (w ^ ones*'\\' - ones)) & tops; stop != 0 {
			return n + bits.TrailingZeros64(stop)/8
		}
	}
	for ; n < len(b); n++ {
		if c := b[n]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return n
}

// escaped reads the string from s.i, after its opening quote, into the arena; its first n bytes are plain.
func (s *scanner) escaped(n int, arena *Arena) ([]byte, bool) {
	start := len(arena.buf)
	out := arena.buf
	for ; ; n = plain(s.b[s.i:]) {
		out = append(out, s.b[s.i:s.i+n]...)
		if s.i += n; s.i == len(s.b) {
			return nil, false
		}
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			arena.buf = out
			return out[start:len(out):len(out)], true
		case c == '\\':
			var ok bool
			if out, ok = s.escape(out); !ok {
				return nil, false
			}
		case c < 0x20:
			return nil, false
		default:
			out = utf8.AppendRune(out, utf8.RuneError) // an invalid byte becomes U+FFFD, as in encoding/json
			s.i++
		}
	}
}

func (s *scanner) escape(out []byte) ([]byte, bool) {
	if s.i+1 >= len(s.b) {
		return out, false
	}
	c := s.b[s.i+1]
	s.i += 2
	switch c {
	case '"', '\\', '/':
		return append(out, c), true
	case 'b':
		return append(out, '\b'), true
	case 'f':
		return append(out, '\f'), true
	case 'n':
		return append(out, '\n'), true
	case 'r':
		return append(out, '\r'), true
	case 't':
		return append(out, '\t'), true
	case 'u':
		r, ok := s.hex()
		if !ok {
			return out, false
		}
		if utf16.IsSurrogate(r) {
			r = s.pair(r)
		}
		return utf8.AppendRune(out, r), true
	}
	return out, false
}

// pair completes a surrogate with the escape that follows; a lone one is U+FFFD and consumes nothing.
func (s *scanner) pair(first rune) rune {
	if bytes.HasPrefix(s.b[s.i:], []byte(`\u`)) {
		before := s.i
		s.i += 2
		if second, ok := s.hex(); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r
			}
		}
		s.i = before
	}
	return utf8.RuneError
}

func (s *scanner) hex() (rune, bool) {
	if s.i+4 > len(s.b) {
		return 0, false
	}
	var r rune
	for _, c := range s.b[s.i : s.i+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.i += 4
	return r, true
}

// skip passes over one value whose key we do not use, such as "attrs". Brackets and strings must match; of numbers
// and words only the alphabet is looked at.
func (s *scanner) skip(depth int) bool {
	if s.i >= len(s.b) || depth > 64 {
		return false
	}
	switch c := s.b[s.i]; c {
	case '"':
		var a Arena
		_, ok := s.text(&a)
		return ok
	case '{', '[':
		s.i++
		return s.skipAll(c, depth)
	}
	from := s.i
	for s.i < len(s.b) && wordByte(s.b[s.i]) {
		s.i++
	}
	return s.i > from
}

func (s *scanner) skipAll(open byte, depth int) bool {
	for first := true; ; first = false {
		s.space()
		if s.take(open + 2) { // '{' and '}', '[' and ']' are two apart in ASCII
			return true
		}
		if !first {
			if !s.take(',') {
				return false
			}
			s.space()
		}
		if open == '{' {
			if s.i >= len(s.b) || s.b[s.i] != '"' || !s.skip(depth+1) {
				return false
			}
			s.space()
			if !s.take(':') {
				return false
			}
			s.space()
		}
		if !s.skip(depth + 1) {
			return false
		}
	}
}

func wordByte(c byte) bool {
	return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '+' || c == '.'
}
