package logship

import (
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// The bounds of one batch. Each sink has two: one on its way, one being filled.
const (
	batchBytes   = 1 << 20
	batchRecords = 8192
	readBytes    = 256 << 10 // what one stream may read before it is another's turn
	rawLimit     = 8 << 20   // a raw line: 1 MiB of text with every byte escaped, and its frame
)

// batch holds records and, for each, where its stream stands once it is delivered. The records' bytes lie in buf, in
// the decoder's arena, or, for a line that fits nowhere, in a buffer of its own.
type batch struct {
	records []sink.Record
	marks   []mark
	skips   []mark // lines that are not delivered; see skip
	buf     []byte
	arena   decode.Arena
	closed  bool // the next line needs an empty batch
}

// mark is the place after a record: end is where the raw line ended, from where a reader must begin to have the
// unfinished lines again (it is end when there are none).
type mark struct {
	cursor    *cursor
	end, from decode.Mark
	bytes     int // of the raw line
	left      *[]left
}

func newBatch() *batch { return &batch{buf: make([]byte, 0, batchBytes)} }

func (b *batch) reset() {
	clear(b.records) // lets go of origins
	clear(b.marks)
	clear(b.skips)
	b.records, b.marks, b.skips, b.buf = b.records[:0], b.marks[:0], b.skips[:0], b.buf[:0]
	b.closed = false
	b.arena.Reset()
}

func (b *batch) full() bool {
	return b.closed || len(b.records) >= batchRecords || cap(b.buf)-len(b.buf) < batchBytes/8
}

func (b *batch) empty() bool { return len(b.records) == 0 && len(b.skips) == 0 }
