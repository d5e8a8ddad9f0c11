package expo

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// deflater writes the gzip form (RFC 1951 and 1952) of a page while the Encoder makes its text. It does not look for
// repetitions, because it is told where they are: a line begins as the line before it did, its labels were tokenised once
// (see Labels), and only the value is new. That costs a tenth of what compressing the finished page does.
//
// All is one block under a Huffman code that never changes, so that tokenised labels stay good from page to page.
type deflater struct {
	out  []byte
	acc  uint64 // bits not yet in out, the first in the lowest place
	held uint   // how many, less than 32
	crc  uint32
	size int // text bytes that crc covers

	length, distance int // a match that may still grow

	page     uint64
	newline  bool // the last line's end is owed: the next line's match includes it
	value    line // the family's last line with a value
	creation line // and with a creation time
	labels   *Labels
	labelsAt int
	extras   [8]tail
	extra    int
}

// line is where a line begins in the text, and what follows its name: a brace, or a space. The zero value is none.
type line struct {
	at    int
	brace byte
}

const (
	window            = 32 << 10 // how far back a match may reach
	shortest, longest = 3, 258   // how long one may be
)

// reset begins a page in out, whose contents are overwritten.
func (z *deflater) reset(out []byte) {
	*z = deflater{page: z.page + 1, out: append(out[:0], 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255)}
	z.out = append(z.out, blockHeader.whole...)
	z.acc, z.held = blockHeader.rest, blockHeader.bits
}

// finish ends the page.
func (z *deflater) finish() []byte {
	z.end()
	z.put(literals[endOfBlock])
	for ; z.held > 0; z.held -= min(z.held, 8) {
		z.out = append(z.out, byte(z.acc))
		z.acc >>= 8
	}
	z.out = binary.LittleEndian.AppendUint32(z.out, z.crc)
	return binary.LittleEndian.AppendUint32(z.out, uint32(z.size))
}

// account takes text into the checksum, whose tokens were written before.
func (z *deflater) account(text []byte) {
	z.crc = crc32.Update(z.crc, crc32.IEEETable, text)
	z.size += len(text)
}

// text writes text of no known form.
func (z *deflater) text(text []byte) {
	z.end()
	for _, c := range text {
		z.put(literals[c])
	}
	z.value, z.creation = line{}, line{}
}

// end writes what is owed.
func (z *deflater) end() {
	z.flush()
	if z.newline {
		z.put(literals['\n'])
		z.newline = false
	}
}

// sample writes one line: text is all of it, which begins at position at of the page and ends with a line feed; its name
// with the brace is head long, its value begins at value. last is the last of the same name, and becomes this one.
func (z *deflater) sample(last *line, at int, text []byte, head int, l *Labels, extra []byte, value int) {
	if back := at - last.at; last.brace == text[head-1] && back <= window && 1+head >= shortest {
		z.match(1+head, back)
	} else {
		z.end()
		z.literals(text[:head])
	}
	*last = line{at, text[head-1]}
	begin := at + head
	if l != nil {
		z.write(l, begin)
		begin += len(l.text)
	}
	z.tail(begin, text[begin-at:value], extra)
	z.literals(text[value : len(text)-1])
	z.newline = true
}

// write writes l at position at: as a whole where it was in the line before too, else by the tokens that were made of it.
func (z *deflater) write(l *Labels, at int) {
	before, back := z.labels, at-z.labelsAt
	z.labels, z.labelsAt = l, at
	if before == nil || back > window-len(l.text) {
		z.tokens(l.standalone(), 0)
		return
	}
	if before == l && len(l.text) >= shortest {
		z.match(len(l.text), back)
		return
	}
	// Which labels come before is as a rule the same on every page and in every family. What changed is looked at once
	// a page, with the first family.
	if l.page != z.page {
		l.page = z.page
		l.follow(before)
	}
	if l.before == before {
		z.tokens(l.after, back)
		return
	}
	z.tokens(l.standalone(), 0)
}

func (z *deflater) tokens(ts []token, back int) {
	for i := range ts {
		t := &ts[i]
		if t.bits > 0 {
			z.flush()
			z.words(t.words, t.bits)
		}
		if t.length > 0 {
			z.match(t.length, back+t.delta)
		}
	}
}

// words writes so many bits, 64 of them in each word and the rest in the last.
func (z *deflater) words(words []uint64, bits int) {
	whole := bits / 64
	out, acc := z.out, z.acc
	for _, w := range words[:whole] {
		out = binary.LittleEndian.AppendUint64(out, acc|w<<z.held)
		acc = w >> (64 - z.held)
	}
	z.out, z.acc = out, acc
	if rest := bits % 64; rest > 0 {
		z.add(words[whole]&(1<<32-1), min(rest, 32))
		if rest > 32 {
			z.add(words[whole]>>32, rest-32)
		}
	}
}

// tail writes the labels beyond the container's, which are as a rule the same in each line or in every few, and the
// closing brace.
func (z *deflater) tail(at int, text, extra []byte) {
	if len(extra) == 0 {
		z.literals(text)
		return
	}
	for i := range z.extras {
		t := &z.extras[i]
		if len(t.of) == len(extra) && &t.of[0] == &extra[0] && t.length == len(text) && at-t.at <= window {
			z.match(len(text), at-t.at)
			t.at = at
			return
		}
	}
	z.literals(text)
	z.extras[z.extra%len(z.extras)] = tail{extra, at, len(text)}
	z.extra++
}

// tail is where extra labels were written last.
type tail struct {
	of         []byte
	at, length int
}

func (z *deflater) literals(text []byte) {
	z.flush()
	for _, c := range text {
		z.put(literals[c])
	}
}

// match says that the next n bytes are those that are back bytes before them.
func (z *deflater) match(n, back int) {
	if z.length > 0 && z.distance == back {
		z.length += n
		return
	}
	z.flush()
	z.length, z.distance = n, back
}

// flush writes the match that was held back.
func (z *deflater) flush() {
	for z.length > 0 {
		n := min(z.length, longest)
		if rest := z.length - n; rest > 0 && rest < shortest {
			n -= shortest
		}
		z.put(lengths[n])
		z.put(distance(z.distance))
		z.length -= n
	}
}

// code is some bits, the first in the lowest place.
type code struct {
	bits uint32
	n    uint
}

func (z *deflater) put(c code) { z.add(uint64(c.bits), int(c.n)) }

// add writes up to 32 bits.
func (z *deflater) add(b uint64, n int) {
	z.acc |= b << z.held
	if z.held += uint(n); z.held >= 32 {
		z.out = binary.LittleEndian.AppendUint32(z.out, uint32(z.acc))
		z.acc >>= 32
		z.held -= 32
	}
}

// distance gives the code of a distance with its extra bits.
func distance(back int) code {
	x := uint32(back - 1)
	if x < 4 {
		return distances[x]
	}
	extra := uint(bits.Len32(x)) - 2
	c := distances[2*(uint32(extra)+1)+x>>extra&1]
	return code{c.bits | x&(1<<extra-1)<<c.n, c.n + extra}
}
