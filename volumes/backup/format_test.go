package backup

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

var examples = []Entry{
	{Node: tree.Node{Name: "\x01 first\n", Kind: tree.File, Mode: 0o6755, UID: 1, GID: 4294967295, MTime: tree.Time{Sec: -1 << 62, Nsec: 999_999_999}, Size: 12, Xattrs: []tree.Xattr{{Name: "user.a", Value: []byte{}}, {Name: "user.b", Value: []byte("\x00\xff")}}}, Object: "abc", Hash: Hash{1, 2}, Link: LinkID{3}},
	{Node: tree.Node{Name: "dir", Kind: tree.Directory, Mode: 0o1777, MTime: tree.Time{Sec: 1 << 40}}, Object: "k1"},
	{Node: tree.Node{Name: "disk", Kind: tree.BlockDev, Major: 7, Minor: 1 << 20}},
	{Node: tree.Node{Name: "link", Kind: tree.Symlink, Target: "no/such\n\xff"}},
	{Node: tree.Node{Name: "null", Kind: tree.CharDev, Major: 1, Minor: 3}},
	{Node: tree.Node{Name: "pipe", Kind: tree.Fifo}},
	{Node: tree.Node{Name: "sock", Kind: tree.Socket}},
	{Node: tree.Node{Name: "sparse", Kind: tree.File, Size: 1 << 50, Sparse: true, Extents: []tree.Extent{{Off: 0, Len: 1}, {Off: 1 << 49, Len: 4096}}}, Object: "x"},
	{Node: tree.Node{Name: "sparse-all", Kind: tree.File, Size: 10, Sparse: true}},
	{Node: tree.Node{Name: "\xff\xfe", Kind: tree.File}},
}

func directory(t testing.TB, entries []Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := newDirectoryWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		if err := w.add(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(b []byte) (out []Entry, err error) {
	r, err := newDirectoryReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		e, err := r.next()
		if err == io.EOF { //nolint:errorlint // a wrapped one would be a fault
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
}

func TestDirectoryComesBackByteForByte(t *testing.T) {
	t.Parallel()
	got, err := read(directory(t, examples))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(examples, got); diff != "" {
		t.Error(diff)
	}
}

func TestDirectoryThatIsCutShortIsAnError(t *testing.T) {
	t.Parallel()
	whole := directory(t, examples)
	ends := map[int]bool{len(whole): true}
	for i := range examples {
		ends[len(directory(t, examples[:i]))] = true
	}
	for n := range whole {
		if _, err := read(whole[:n]); err == nil && !ends[n] {
			t.Errorf("%d of %d bytes were taken for a directory", n, len(whole))
		}
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", "a/b", "/etc", "a\x00b"} {
		b := []byte(directoryMagic)
		e := encodeEntry(&Entry{Node: tree.Node{Name: name, Kind: tree.Fifo}})
		b = append(append(b, byte(len(e))), e...)
		if got, err := read(b); err == nil {
			t.Errorf("%q was read as %+v", name, got)
		}
	}
	twice := []byte(directoryMagic)
	e := encodeEntry(&Entry{Node: tree.Node{Name: "same", Kind: tree.Fifo}})
	for range 2 {
		twice = append(append(twice, byte(len(e))), e...)
	}
	if _, err := read(twice); err == nil || !strings.Contains(err.Error(), `"same" behind "same"`) {
		t.Errorf("a name that is there twice: %v", err)
	}
}

func FuzzDirectory(f *testing.F) {
	f.Add(directory(f, examples))
	f.Add([]byte(directoryMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := read(b)
		if err != nil {
			return
		}
		again, err := read(directory(t, entries))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(entries, again); diff != "" {
			t.Error(diff)
		}
		for _, e := range entries {
			end := int64(0)
			for _, x := range e.Extents {
				if x.Off < end || x.Off+x.Len > e.Size || x.Len < 0 {
					t.Errorf("extent %+v of a file of %d bytes, behind %d", x, e.Size, end)
				}
				end = x.Off + x.Len
			}
		}
	})
}
