package logship

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
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
func (l *Logship) Verify() (Verified, error) { return Verify(l.deps.State.Path(), l.cfg.Pins) }

// Verify is for when no agent runs; dir is the log shipper's state directory, pins the key of the configuration.
func Verify(dir, pins string) (Verified, error) {
	out := Verified{Faults: []Fault{}}
	kept, err := newPins(dir, "", pins, slog.New(slog.DiscardHandler)).List()
	if err != nil {
		return out, err
	}
	saved, err := ledger.Read(dir)
	if err != nil {
		return out, err
	}
	for _, d := range saved.Damage {
		out.Faults = append(out.Faults, Fault{Path: dir, What: "wrong ledger: " + d})
	}
	out.Streams = len(saved.Streams)
	for key, src := range saved.Streams {
		v := verifier{key: key, src: src, out: &out, pins: kept, blocks: blockFile(dir, key)}
		sum := saved.Sums[key]
		for _, s := range append([]ledger.Sum{sum}, sum.Older...) {
			v.sum(s)
		}
		for name, k := range saved.Sinks {
			if p, ok := k.At[key]; ok {
				out.Positions++
				v.position(name, p)
			}
		}
		for _, g := range saved.Seen[key] {
			v.seen(g)
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
	pins   []tail.Pin
	blocks string
	summed []tail.Identity // the files whose content was found to be what was delivered
	wrong  []tail.Identity // the files that have a fault already
	torn   []string        // packed files that were told of
}

// open finds a file by what it is: beside the log, or kept as a pin only.
func (v *verifier) open(id tail.Identity) (*os.File, error) {
	f, err := tail.OpenIdentity(v.src.Root, v.src.Path, id)
	if err == nil {
		return f, nil
	}
	for _, p := range v.pins {
		if p.ID.Same(id) {
			return tail.Host.Open(p.Link)
		}
	}
	return nil, err
}

func (v *verifier) fault(sink, format string, args ...any) {
	v.out.Faults = append(v.out.Faults, Fault{Stream: v.key, Sink: sink, Path: v.src.Path, What: fmt.Sprintf(format, args...)})
}

// sum compares a file with what a sink had of it.
func (v *verifier) sum(want ledger.Sum) {
	if want.Offset == 0 {
		return
	}
	f, err := v.open(want.Identity)
	if err != nil {
		v.packed(want) // or removed
		return
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, io.NewSectionReader(f, 0, want.Offset))
	switch {
	case err != nil:
		v.fault("", "cannot be read: %v", err)
	case n < want.Offset:
		v.wrong = append(v.wrong, want.Identity)
		v.fault("", "shortened file: %d bytes of it were delivered, it has %d", want.Offset, n)
	case h.Sum32() != want.CRC:
		v.wrong = append(v.wrong, want.Identity)
		v.fault("", "altered line: %s not what was delivered", v.where(f, want))
	default:
		v.summed = append(v.summed, want.Identity)
		v.out.Summed += n
	}
}

// packed compares what a sink had of a file with the .gz that it may be in now. Of one that is damaged it tells; one whose
// content is another may be another file, as heads of logs are alike.
func (v *verifier) packed(want ledger.Sum) {
	for _, p := range tail.Packed(v.src.Root, v.src.Path, want.Birth) {
		h := crc32.New(castagnoli)
		in, err := p.Reader()
		n := int64(0)
		if err == nil {
			n, err = io.CopyN(h, in, want.Offset)
		}
		switch {
		case err == nil && h.Sum32() == want.CRC:
			v.summed = append(v.summed, want.Identity)
			v.out.Summed += n
		case err != nil && !errors.Is(err, io.EOF) && !slices.Contains(v.torn, p.Path):
			v.torn = append(v.torn, p.Path)
			v.fault("", "damaged packed file: %s ends after %d bytes: %v", p.Path, n, err)
		}
		p.Close()
	}
}

// position looks whether a saved place is one: in a file that is there, at the end of a line, after the content it says.
func (v *verifier) position(sink string, p ledger.Position) {
	f, err := v.open(p.Identity)
	if errors.Is(err, fs.ErrNotExist) {
		return // removed, or kept by a descriptor only
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
	case slices.ContainsFunc(v.wrong, p.Same): // told already
	case p.Offset > p.Seen:
		v.fault(sink, "wrong ledger: position %d in a file that never had more than %d bytes", p.Offset, p.Seen)
	case fi.Size() < p.Offset || fi.Size() < p.Seen:
		v.fault(sink, "shortened file: it had %d bytes, it has %d", p.Seen, fi.Size())
	case tail.Prove(f, p.Offset) == p.Proof && endsLine(f, p.Offset):
	case slices.ContainsFunc(v.summed, p.Same):
		v.fault(sink, "wrong ledger: position %d is not a place in this file, whose content is what was delivered", p.Offset)
	default:
		v.fault(sink, "altered line or wrong ledger: what stands before position %d is not what was delivered", p.Offset)
	}
}

// where names the lines of a file that are not what was summed, as closely as it is known.
func (v *verifier) where(f *os.File, want ledger.Sum) string {
	from, to, ok := altered(v.blocks, f, want.Identity, want.Offset)
	if !ok {
		return fmt.Sprintf("the first %d bytes are", want.Offset)
	}
	first, last, err := linesIn(f, from, to)
	switch {
	case err != nil:
		return fmt.Sprintf("bytes %d to %d are", from, to)
	case first == last:
		return fmt.Sprintf("line %d (bytes %d to %d) is", first, from, to)
	}
	return fmt.Sprintf("one of lines %d to %d (bytes %d to %d) is", first, last, from, to)
}

// seen looks whether what waits for a sink is still what was seen.
func (v *verifier) seen(g ledger.Seen) {
	f, err := v.open(g.Identity)
	if g.Cut || err != nil {
		return // counted as lost, or will be; or kept by a descriptor only
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		v.fault("", "cannot be looked at: %v", err)
	case slices.ContainsFunc(v.wrong, g.Same): // told already
	case fi.Size() < g.Seen:
		v.wrong = append(v.wrong, g.Identity)
		v.fault("", "shortened file: it had %d bytes that no sink has all of, it has %d", g.Seen, fi.Size())
	case tail.Prove(f, g.Offset) != g.Proof:
		v.wrong = append(v.wrong, g.Identity)
		v.fault("", "altered line: what stands before byte %d, which no sink has yet, is not what was seen", g.Offset)
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
