package logship

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// Fault is one disagreement between the ledger and the files.
type Fault struct {
	Stream string `json:"stream,omitempty"`
	Sink   string `json:"sink,omitempty"`
	Path   string `json:"path"`
	What   string `json:"what"`
}

// Verified is what Verify found.
type Verified struct {
	Streams   int     `json:"streams"`
	Positions int     `json:"positions"`
	Summed    int64   `json:"summed_bytes"` // whose content was compared with what was delivered
	Faults    []Fault `json:"faults"`
}

// Verify compares the ledger with the files, as both lie on the disk. It changes nothing and needs no running agent.
func (l *Logship) Verify() (Verified, error) { return Verify(l.deps.State.Path()) }

// Verify is for when no agent runs; dir is the log shipper's state directory.
func Verify(dir string) (Verified, error) {
	out := Verified{Faults: []Fault{}}
	saved, err := ledger.Read(dir)
	if err != nil {
		return out, err
	}
	for _, d := range saved.Damage {
		out.Faults = append(out.Faults, Fault{Path: dir, What: "wrong ledger: " + d})
	}
	out.Streams = len(saved.Streams)
	for key, src := range saved.Streams {
		v := verifier{key: key, src: src, out: &out}
		v.sum(saved.Sums[key])
		for name, k := range saved.Sinks {
			if p, ok := k.At[key]; ok {
				out.Positions++
				v.position(name, p)
			}
		}
	}
	slices.SortFunc(out.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.What, b.What))
	})
	return out, nil
}

// verifier looks at one stream.
type verifier struct {
	key    string
	src    ledger.Source
	out    *Verified
	summed tail.Identity // the file whose content was found to be what was delivered
	wrong  tail.Identity // the file that has a fault already
}

func (v *verifier) fault(sink, format string, args ...any) {
	v.out.Faults = append(v.out.Faults, Fault{Stream: v.key, Sink: sink, Path: v.src.Path, What: fmt.Sprintf(format, args...)})
}

// sum compares the newest file with what a sink had of it.
func (v *verifier) sum(want ledger.Sum) {
	if want.Offset == 0 {
		return
	}
	f, err := tail.OpenIdentity(v.src.Root, v.src.Path, want.Identity)
	if err != nil {
		return // rotated away and delivered
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, io.NewSectionReader(f, 0, want.Offset))
	switch {
	case err != nil:
		v.fault("", "cannot be read: %v", err)
	case n < want.Offset:
		v.wrong = want.Identity
		v.fault("", "shortened file: %d bytes of it were delivered, it has %d", want.Offset, n)
	case h.Sum32() != want.CRC:
		v.wrong = want.Identity
		v.fault("", "altered line: the first %d bytes are not those that were delivered", want.Offset)
	default:
		v.summed = want.Identity
		v.out.Summed += n
	}
}

// position looks whether a saved place is one: in a file that is there, at the end of a line, after the content it says.
func (v *verifier) position(sink string, p ledger.Position) {
	f, err := tail.OpenIdentity(v.src.Root, v.src.Path, p.Identity)
	if errors.Is(err, fs.ErrNotExist) {
		return // removed, or kept as a pin only
	}
	if err != nil {
		v.fault(sink, "cannot be opened: %v", err)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		v.fault(sink, "cannot be looked at: %v", err)
	case v.wrong.Same(p.Identity): // told already
	case p.Offset > p.Seen:
		v.fault(sink, "wrong ledger: position %d in a file that never had more than %d bytes", p.Offset, p.Seen)
	case fi.Size() < p.Offset || fi.Size() < p.Seen:
		v.fault(sink, "shortened file: it had %d bytes, it has %d", p.Seen, fi.Size())
	case tail.Prove(f, p.Offset) == p.Proof && endsLine(f, p.Offset):
	case v.summed.Same(p.Identity):
		v.fault(sink, "wrong ledger: position %d is not a place in this file, whose content is what was delivered", p.Offset)
	default:
		v.fault(sink, "altered line or wrong ledger: what stands before position %d is not what was delivered", p.Offset)
	}
}

// endsLine tells whether a line ends at off. The last of a file that nobody writes to may have no end.
func endsLine(f *os.File, off int64) bool {
	var b [1]byte
	if off == 0 {
		return true
	}
	if _, err := f.ReadAt(b[:], off-1); err != nil {
		return false
	}
	fi, err := f.Stat()
	return b[0] == '\n' || err == nil && off == fi.Size()
}
