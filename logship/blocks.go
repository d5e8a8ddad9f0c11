package logship

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/logship/tail"
)

// The sums of each KiB of a log's newest file, by which verify names altered lines. They are a hint beside the sum of
// all, which decides: 0.4 % of what was delivered, in a file of their own, and none of what lies beyond 256 MiB.
const (
	blockBytes = 1 << 10
	blockLimit = 256 << 10
	blockHead  = 24 // device, inode and birth of the file
)

// blockSums adds to the sums of one file. The nil blockSums adds nothing.
type blockSums struct {
	path string
	head []byte
	n    int    // blocks that are in the file
	text []byte // sums that are not yet
	crc  uint32 // of the block that is not whole
	part int
}

// blockFile is where the sums of a stream's newest file lie.
func (l *Logship) blockFile(key string) string { return blockFile(l.deps.State.Path(), key) }

func blockFile(dir, key string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return filepath.Join(dir, "sums", fmt.Sprintf("%016x", h.Sum64()))
}

func blockHeader(id tail.Identity) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id.Dev)
	b = binary.LittleEndian.AppendUint64(b, id.Ino)
	return binary.LittleEndian.AppendUint64(b, uint64(id.Birth))
}

// openBlocks goes on at off with the sums that an earlier run has left, or begins; nil when neither can be.
func openBlocks(path string, g *tail.Generation, off int64) *blockSums {
	b := &blockSums{path: path, head: blockHeader(g.Identity()), n: int(off / blockBytes)}
	if off == 0 {
		if os.MkdirAll(filepath.Dir(path), 0o700) != nil || os.WriteFile(path, b.head, 0o600) != nil {
			return nil
		}
		return b
	}
	have, err := os.ReadFile(path)
	if err != nil || len(have) < blockHead+4*b.n || string(have[:blockHead]) != string(b.head) || os.Truncate(path, int64(blockHead+4*b.n)) != nil {
		return nil
	}
	rest := make([]byte, off%blockBytes)
	if _, err := g.ReadAt(rest, off-int64(len(rest))); err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	b.add(rest)
	return b
}

func (b *blockSums) add(data []byte) {
	for b != nil && len(data) > 0 && b.n+len(b.text)/4 < blockLimit {
		m := min(len(data), blockBytes-b.part)
		b.crc, b.part, data = crc32.Update(b.crc, castagnoli, data[:m]), b.part+m, data[m:]
		if b.part == blockBytes {
			b.text = binary.LittleEndian.AppendUint32(b.text, b.crc)
			b.crc, b.part = 0, 0
		}
	}
}

// save writes what was added. What cannot be written ends the sums of this file.
func (b *blockSums) save() {
	if b == nil || len(b.text) == 0 {
		return
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0o600)
	if err != nil {
		b.n = blockLimit
		return
	}
	defer f.Close()
	if _, err := f.WriteAt(b.text, int64(blockHead+4*b.n)); err != nil {
		b.n = blockLimit
		return
	}
	b.n += len(b.text) / 4
	b.text = b.text[:0]
}

// altered gives the bytes in which f differs from what was summed of it before end: the first place, as far as it goes.
func altered(path string, f *os.File, id tail.Identity, end int64) (from, to int64, ok bool) {
	sums, err := os.ReadFile(path)
	if err != nil || len(sums) < blockHead || string(sums[:blockHead]) != string(blockHeader(id)) {
		return 0, 0, false
	}
	sums = sums[blockHead:]
	sums = sums[:min(int64(len(sums)/4), end/blockBytes)*4]
	from = -1
	buf := make([]byte, blockBytes)
	for i := 0; i*4 < len(sums); i++ {
		if _, err := f.ReadAt(buf, int64(i)*blockBytes); err != nil {
			return 0, 0, false
		}
		same := crc32.Checksum(buf, castagnoli) == binary.LittleEndian.Uint32(sums[i*4:])
		switch {
		case same && from >= 0:
			return from, to, true
		case !same && from < 0:
			from = int64(i) * blockBytes
		}
		to = int64(i+1) * blockBytes
	}
	if from < 0 {
		from, to = to, end
	}
	return from, min(to, end), true
}

// linesIn gives the numbers of the lines that have bytes in the range; the first line is 1.
func linesIn(f *os.File, from, to int64) (first, last int, err error) {
	count := func(from, to int64) (n int, err error) {
		buf := make([]byte, 64<<10)
		for in := io.NewSectionReader(f, from, to-from); err == nil; {
			var m int
			m, err = in.Read(buf)
			for _, c := range buf[:m] {
				if c == '\n' {
					n++
				}
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	}
	before, err := count(0, from)
	if err != nil {
		return 0, 0, err
	}
	within, err := count(from, to-1) // its last byte may be a newline: then the line ends here
	return before + 1, before + 1 + within, err
}
