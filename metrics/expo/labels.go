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
	words         []uint64
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
	var inBefore, inText places
	for i := range max(0, len(before)-least+1) {
		if at := inBefore.of(before[i:]); *at == 0 {
			*at = int32(i + 1)
		}
	}
	var (
		out  []token
		z    deflater
		room [512]byte // no need to make garbage: at an agent's start there are a thousand labels
	)
	z.out = room[:0]
	cut := func(length, delta int) {
		z.flush()
		t := token{bits: 8*len(z.out) + int(z.held), length: length, delta: delta}
		if t.bits > 0 {
			t.words = make([]uint64, 0, (t.bits+63)/64)
		}
		z.out = binary.LittleEndian.AppendUint64(z.out, z.acc)
		z.out = binary.LittleEndian.AppendUint64(z.out, 0)
		for i := 0; i < t.bits; i += 64 {
			t.words = append(t.words, binary.LittleEndian.Uint64(z.out[i/8:]))
		}
		out = append(out, t)
		z = deflater{out: z.out[:0]}
	}
	for i := 0; i < len(text); {
		n, from, own := 0, 0, false
		if i+least <= len(text) {
			if at := int(*inBefore.of(text[i:])) - 1; at >= 0 {
				n, from = common(text[i:], before[at:]), at
			}
			seen := inText.of(text[i:])
			if at := int(*seen) - 1; at >= 0 && i-at < window {
				if m := common(text[i:], text[at:]); m > n {
					n, from, own = m, at, true
				}
			}
			*seen = int32(i + 1)
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
			*inText.of(text[j:]) = int32(j + 1)
		}
		i += n
	}
	cut(0, 0)
	return out
}

// places tell where four bytes were seen, or others that fall upon the same place: whoever asks compares.
type places [1024]int32

// of gives the place of the four bytes that text begins with: where they were seen, and 1; 0 is nowhere.
func (p *places) of(text []byte) *int32 {
	const spread = 2654435769 // 2^32 by the golden ratio
	return &p[binary.LittleEndian.Uint32(text)*spread>>22]
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
