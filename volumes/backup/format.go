package backup

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Entry is one entry of a stored directory.
type Entry struct {
	tree.Node
	// Link is the same for all names of one file (or fifo, ...) in a backup; zero when it has one name.
	Link LinkID
	// Object holds the data of a file (its extents one after the other) or the entries of a directory.
	Object string
	// Hash is BLAKE3 over what Object holds; of a file only.
	Hash Hash
}

// LinkID is a hash of the first name's path, so that it does not depend on what else is in the tree.
type LinkID [16]byte

// Hash is BLAKE3, 256 bits.
type Hash [32]byte

// A directory object is this line and then its entries, each behind its length, sorted by name.
const directoryMagic = "fairlead directory 1\n"

// maxEntry bounds one encoded entry: the extents of a file with millions of holes are long.
const maxEntry = 256 << 20

// writer of directory objects.
type directoryWriter struct {
	w    *bufio.Writer
	last string
}

func newDirectoryWriter(w io.Writer) (*directoryWriter, error) {
	d := &directoryWriter{w: bufio.NewWriterSize(w, 64<<10)}
	_, err := d.w.WriteString(directoryMagic)
	return d, err
}

func (d *directoryWriter) add(e *Entry) error {
	if !tree.ValidName(e.Name) || d.last >= e.Name {
		return fmt.Errorf("entry %q cannot follow %q", e.Name, d.last)
	}
	d.last = e.Name
	b := encodeEntry(e)
	if _, err := d.w.Write(binary.AppendUvarint(nil, uint64(len(b)))); err != nil {
		return err
	}
	_, err := d.w.Write(b)
	return err
}

func (d *directoryWriter) close() error { return d.w.Flush() }

// directoryReader reads a directory object and believes nothing: a repository is a foreign place.
type directoryReader struct {
	r    *bufio.Reader
	last string
}

func newDirectoryReader(r io.Reader) (*directoryReader, error) {
	d := &directoryReader{r: bufio.NewReaderSize(r, 64<<10)}
	magic := make([]byte, len(directoryMagic))
	if _, err := io.ReadFull(d.r, magic); err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	if string(magic) != directoryMagic {
		return nil, fmt.Errorf("read directory: it begins with %q", magic)
	}
	return d, nil
}

// next gives the next entry, or io.EOF behind the last.
func (d *directoryReader) next() (Entry, error) {
	size, err := binary.ReadUvarint(d.r)
	if errors.Is(err, io.EOF) {
		return Entry{}, io.EOF
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read directory: %w", err)
	}
	if size > maxEntry {
		return Entry{}, fmt.Errorf("read directory: an entry of %d bytes", size)
	}
	var b bytes.Buffer // grows with what is really there
	if n, err := io.CopyN(&b, d.r, int64(size)); err != nil {
		return Entry{}, fmt.Errorf("read directory: entry has %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	e, err := decodeEntry(b.Bytes())
	if err != nil {
		return Entry{}, fmt.Errorf("read directory: behind %q: %w", d.last, err)
	}
	if !tree.ValidName(e.Name) || e.Name <= d.last {
		return Entry{}, fmt.Errorf("read directory: entry %q behind %q", e.Name, d.last)
	}
	d.last = e.Name
	return e, nil
}

// encodeEntry writes numbers as varints and text behind its length, so that any byte may be in a name. A field is
// written only for kinds that have it.
func encodeEntry(e *Entry) []byte {
	b := []byte{byte(e.Kind)}
	number := func(v uint64) { b = binary.AppendUvarint(b, v) }
	text := func(s string) { number(uint64(len(s))); b = append(b, s...) }
	text(e.Name)
	number(uint64(e.Mode))
	number(uint64(e.UID))
	number(uint64(e.GID))
	b = binary.AppendVarint(b, e.MTime.Sec)
	number(uint64(e.MTime.Nsec))
	number(uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		text(x.Name)
		text(string(x.Value))
	}
	if e.Link == (LinkID{}) {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), e.Link[:]...)
	}
	switch e.Kind {
	case tree.File:
		number(uint64(e.Size))
		text(e.Object)
		b = append(b, e.Hash[:]...)
		if !e.Sparse {
			return append(b, 0)
		}
		b = append(b, 1)
		number(uint64(len(e.Extents)))
		end := int64(0)
		for _, x := range e.Extents {
			number(uint64(x.Off - end))
			number(uint64(x.Len))
			end = x.Off + x.Len
		}
	case tree.Directory:
		text(e.Object)
	case tree.Symlink:
		text(e.Target)
	case tree.CharDev, tree.BlockDev:
		number(uint64(e.Major))
		number(uint64(e.Minor))
	}
	return b
}

var errShort = errors.New("entry is cut short")

// decoder reads an entry; the first fault stays.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) number(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	if v > most {
		d.fail(fmt.Errorf("number %d is more than %d", v, most))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if uint64(len(d.b)) < n {
		d.fail(errShort)
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) text() string { return string(d.bytes(d.number(maxEntry))) }

func (d *decoder) flag() bool { return d.number(1) == 1 }

// decodeEntry is the inverse of encodeEntry and refuses what encodeEntry does not write.
func decodeEntry(b []byte) (Entry, error) {
	d := &decoder{b: b}
	var e Entry
	if kind := d.bytes(1); kind != nil {
		e.Kind = tree.Kind(kind[0])
	}
	if d.err == nil && !e.Kind.Known() {
		return e, fmt.Errorf("unknown kind %q", byte(e.Kind))
	}
	e.Name = d.text()
	e.Mode = uint32(d.number(0o7777))
	e.UID, e.GID = uint32(d.number(math.MaxUint32)), uint32(d.number(math.MaxUint32))
	e.MTime.Sec, e.MTime.Nsec = d.signed(), uint32(d.number(999_999_999))
	for range d.number(uint64(len(d.b))) {
		x := tree.Xattr{Name: d.text()}
		x.Value = append([]byte{}, d.bytes(d.number(maxEntry))...)
		e.Xattrs = append(e.Xattrs, x)
	}
	if d.flag() {
		copy(e.Link[:], d.bytes(uint64(len(e.Link))))
	}
	d.kind(&e)
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Errorf("%d bytes behind the entry's end", len(d.b)))
	}
	return e, d.err
}

func (d *decoder) kind(e *Entry) {
	switch e.Kind {
	case tree.File:
		e.Size = int64(d.number(math.MaxInt64))
		e.Object = d.text()
		copy(e.Hash[:], d.bytes(uint64(len(e.Hash))))
		if e.Sparse = d.flag(); e.Sparse {
			d.extents(e)
		}
	case tree.Directory:
		e.Object = d.text()
	case tree.Symlink:
		e.Target = d.text()
	case tree.CharDev, tree.BlockDev:
		e.Major, e.Minor = uint32(d.number(math.MaxUint32)), uint32(d.number(math.MaxUint32))
	}
}

func (d *decoder) extents(e *Entry) {
	end := uint64(0)
	for range d.number(uint64(len(d.b))) {
		off := end + d.number(uint64(e.Size)-end)
		size := d.number(uint64(e.Size) - off)
		if d.err != nil {
			return
		}
		e.Extents = append(e.Extents, tree.Extent{Off: int64(off), Len: int64(size)})
		end = off + size
	}
}
