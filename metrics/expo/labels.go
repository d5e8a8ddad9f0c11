package expo

import (
	"encoding/binary"
	"strconv"
	"time"
)

// Labels are rendered labels that many lines have: those of one container. They belong to one Encoder at a time.
type Labels struct {
	text    []byte
	created []byte  // since when their series count, rendered; empty: nobody knows
	alone   []token // made when first needed
	// after are the tokens behind a line with other labels, which are as a rule much the same.
	before *Labels
	after  []token
	page   uint64 // that looked at before last
}

// NewLabels gives the labels whose rendered text is that; see AppendLabel. The text must not change after that.
func NewLabels(text []byte) *Labels { return &Labels{text: text} }

// Since says since when the series of l count, unless that is unknown. It gives l.
func (l *Labels) Since(t time.Time) *Labels {
	if !t.IsZero() {
		l.created = strconv.AppendFloat(nil, float64(t.UnixMilli())/1e3, 'f', -1, 64)
	}
	return l
}

// String is the rendered text.
func (l *Labels) String() string { return string(l.text) }

// With gives labels with one more.
func (l *Labels) With(name, value string) *Labels {
	return &Labels{text: AppendLabel(l.text[:len(l.text):len(l.text)], name, value), created: l.created}
}

// token is some text, as finished codes, and after it a match in the line before, if length is not 0.
type token struct {
	words         []uint32
	bits          int
	length, delta int // delta is added to the distance between these labels and those before
}

func (l *Labels) standalone() []token {
	if l.alone == nil {
		l.alone = tokenise(l.text, nil)
	}
	return l.alone
}

func (l *Labels) follow(before *Labels) {
	if l.before != before {
		l.before, l.after = before, tokenise(l.text, before.text)
	}
}

// tokenise finds what of text is in itself or in before already.
func tokenise(text, before []byte) []token {
	const least = 4
	inBefore, inText := map[uint32]int{}, map[uint32]int{}
	for i := range max(0, len(before)-least+1) {
		if k := binary.LittleEndian.Uint32(before[i:]); inBefore[k] == 0 {
			inBefore[k] = i + 1
		}
	}
	var (
		out []token
		z   deflater
	)
	cut := func(length, delta int) {
		z.flush()
		t := token{bits: 32*(len(z.out)/4) + int(z.held), length: length, delta: delta}
		for i := 0; i < len(z.out); i += 4 {
			t.words = append(t.words, binary.LittleEndian.Uint32(z.out[i:]))
		}
		if z.held > 0 {
			t.words = append(t.words, uint32(z.acc))
		}
		out = append(out, t)
		z = deflater{}
	}
	for i := 0; i < len(text); {
		n, from, own := 0, 0, false
		if i+least <= len(text) {
			k := binary.LittleEndian.Uint32(text[i:])
			if at := inBefore[k] - 1; at >= 0 {
				n, from = common(text[i:], before[at:]), at
			}
			if at := inText[k] - 1; at >= 0 && i-at < window {
				if m := common(text[i:], text[at:]); m > n {
					n, from, own = m, at, true
				}
			}
			inText[k] = i + 1
		}
		switch {
		case n < least:
			z.literals(text[i : i+1])
			n = 1
		case own:
			z.match(n, i-from)
		default:
			cut(n, i-from)
		}
		for j := i + 1; j < i+n && j+least <= len(text); j++ {
			inText[binary.LittleEndian.Uint32(text[j:])] = j + 1
		}
		i += n
	}
	cut(0, 0)
	return out
}

func common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
