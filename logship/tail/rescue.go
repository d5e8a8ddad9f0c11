package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// copied is a file that has the bytes of a truncated one at the same offsets.
type copied struct {
	file  *os.File
	size  int64
	id    Identity
	own   bool // our mirror, which nobody else writes
	unpin func()
}

// Identity tells which file has the content now.
func (g *Generation) Identity() Identity {
	if c := g.copy.Load(); c != nil {
		return c.id
	}
	return g.ID
}

// is tells whether id is the file, or its copy.
func (g *Generation) is(id Identity) bool { return g.ID.Same(id) || g.Identity().Same(id) }

// Rescued tells whether the file was truncated, its content is read from a copy, and the copy ends at off or before.
func (g *Generation) Rescued(off int64) bool {
	c := g.copy.Load()
	return c != nil && off >= c.size
}

// spoiled finds out whether somebody has written another copy over the one that has g's content, as `cp log log.1` does
// the second time. A pin does not help there: it is the same file.
func (g *Generation) spoiled() bool {
	c := g.copy.Load()
	if c == nil || c.own {
		return false
	}
	if _, err := c.file.Stat(); err != nil || g.known.in(c.file) { // an error: it was let go of
		return false
	}
	g.cut.Store(true)
	return true
}

const (
	headBytes = 256
	tailBytes = 64
)

// known is what was read of a file: its first bytes, and the last before the furthest place that was read.
type known struct {
	mu   sync.Mutex
	head []byte
	tail []byte
	end  int64
	from time.Time // when the first of it was read
}

func (k *known) add(b []byte, off int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := int64(len(k.head)); n < headBytes && off <= n && off+int64(len(b)) > n {
		k.head = append(k.head, b[n-off:min(int64(len(b)), headBytes-off)]...)
	}
	if end := off + int64(len(b)); end > k.end && len(b) > 0 {
		if k.end == 0 {
			k.from = time.Now()
		}
		k.end, k.tail = end, append(k.tail[:0], b[max(0, len(b)-tailBytes):]...)
	}
}

// began tells when something was first known; zero when nothing is.
func (k *known) began() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.from
}

// look reads of f what a copy is recognized by while no reader does: the sinks are behind, or down.
func (k *known) look(f *os.File, size int64) {
	k.mu.Lock()
	short, far := int64(len(k.head)) < min(size, headBytes), size-k.end >= 64<<10
	k.mu.Unlock()
	var b [headBytes]byte
	if short {
		n, _ := f.ReadAt(b[:], 0)
		k.add(b[:n], 0)
	}
	if far {
		n, _ := f.ReadAt(b[:tailBytes], size-tailBytes)
		k.add(b[:n], size-tailBytes)
	}
}

// still tells whether f has what was read last where it was read.
func (k *known) still(f *os.File) bool {
	var want, got [tailBytes]byte
	k.mu.Lock()
	n, off := copy(want[:], k.tail), k.end-int64(len(k.tail))
	k.mu.Unlock()
	if n == 0 {
		return true
	}
	m, err := f.ReadAt(got[:n], off)
	return err != nil && !errors.Is(err, io.EOF) || m == n && want == got
}

// in tells whether f holds what was read. A copy may end before the furthest place: then the head decides.
func (k *known) in(f *os.File) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	fi, err := f.Stat()
	if err != nil || k.end == 0 || fi.Size() == 0 {
		return false
	}
	same := func(want []byte, off int64) bool {
		got := make([]byte, len(want))
		_, err := f.ReadAt(got, off)
		return err == nil && bytes.Equal(got, want)
	}
	if fi.Size() < k.end {
		return same(k.head[:min(int64(len(k.head)), fi.Size())], 0)
	}
	return same(k.head, 0) && same(k.tail, k.end-int64(len(k.tail)))
}

// rescue finds a copy of g's content after g's file was truncated: our own mirror, or what copytruncate left beside it.
func (s *Series) rescue(g *Generation) bool {
	f, id := s.mirrored(g)
	own := f != nil
	if !own {
		f, id = s.leftCopy(g)
	}
	if f == nil {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return false
	}
	s.rescues++
	g.copy.Store(&copied{f, fi.Size(), id, own, s.pins.hold(f, id, s.root, s.path)})
	return true
}

// Rescues tells how often a copy took the place of a file that was truncated.
func (s *Series) Rescues() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rescues
}

// leftCopy looks beside the path for a younger file that begins as g does.
func (s *Series) leftCopy(g *Generation) (*os.File, Identity) {
	paths, err := s.root.siblings(s.path)
	if err != nil {
		return nil, Identity{}
	}
	var best *os.File
	var bestID Identity
	for _, p := range paths {
		f, err := s.root.Open(p)
		if err != nil {
			continue
		}
		id, err := identify(int(f.Fd()))
		known := slices.ContainsFunc(s.past, id.Same) || slices.ContainsFunc(s.gens, func(o *Generation) bool { return o.is(id) })
		if err != nil || known || id.Birth <= max(g.ID.Birth, bestID.Birth) || !g.known.in(f) {
			_ = f.Close()
			continue
		}
		if best != nil {
			_ = best.Close()
		}
		best, bestID = f, id
	}
	return best, bestID
}

// mirror is a sparse copy of what is not acknowledged in a file that its writer truncates: bytes at their offsets.
type mirror struct {
	gen  *Generation
	file *os.File
	path string
	from int64
	off  int64
}

// Cuts tells whether the file was seen truncated.
func (s *Series) Cuts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cuts
}

// Mirror copies what the current generation has after from, at most limit bytes in all, into the pin directory, so that
// truncating the file destroys nothing. It tells how many bytes the mirror has. It does nothing without pins.
func (s *Series) Mirror(from, limit int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.last()
	if g == nil || s.pins == nil {
		return 0, nil
	}
	if s.mirror != nil && s.mirror.gen != g {
		s.dropMirror()
	}
	if s.mirror == nil {
		if err := s.newMirror(g, from); err != nil {
			return 0, err
		}
	}
	m := s.mirror
	buf := make([]byte, 256<<10)
	for m.off-m.from < limit {
		n, err := g.file.ReadAt(buf, max(0, m.off-tailBytes))
		skip := int(min(m.off, tailBytes))
		before := make([]byte, skip)
		if _, e := m.file.ReadAt(before, m.off-int64(skip)); e != nil || n < skip || !bytes.Equal(before, buf[:skip]) {
			return m.off - m.from, nil // truncated meanwhile: Look or a reader finds out
		}
		if n <= skip {
			break
		}
		if _, err := m.file.WriteAt(buf[skip:n], m.off); err != nil {
			return m.off - m.from, fmt.Errorf("mirror %s: %w", s.path, err)
		}
		m.off += int64(n - skip)
		if err != nil {
			break // the end for now
		}
	}
	return m.off - m.from, nil
}

func (s *Series) newMirror(g *Generation, from int64) error {
	name, err := s.pins.link(g.ID, s.root, s.path)
	if err != nil {
		return err
	}
	dir, base := filepath.Split(name)
	// Not a pin by its name: what a crash leaves of it is swept.
	path := filepath.Join(dir, s.pins.owner+"-mirror-"+base)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mirror %s: %w", s.path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("mirror %s: %w", s.path, err)
	}
	s.pins.held.Store(path, true)
	s.mirror = &mirror{gen: g, file: f, path: path, from: from, off: from}
	// The head and the bytes before the place are how readers know the content.
	head, before := make([]byte, min(from, headBytes)), make([]byte, min(from, tailBytes))
	for _, p := range []struct {
		off  int64
		part []byte
	}{{0, head}, {from - int64(len(before)), before}} {
		if _, err = g.file.ReadAt(p.part, p.off); err == nil {
			_, err = f.WriteAt(p.part, p.off)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		s.dropMirror()
		return fmt.Errorf("mirror %s: %w", s.path, err)
	}
	return nil
}

// Unmirror ends mirroring: every reader has what there is.
func (s *Series) Unmirror() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropMirror()
}

func (s *Series) dropMirror() {
	if m := s.mirror; m != nil {
		_ = m.file.Close()
		s.pins.drop(m.path)
		s.mirror = nil
	}
}

// mirrored gives the mirror of g's file, opened for reading only, and forgets it.
func (s *Series) mirrored(g *Generation) (*os.File, Identity) {
	m := s.mirror
	if m == nil || m.gen != g || m.off == m.from {
		return nil, Identity{}
	}
	defer s.dropMirror()
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", m.file.Fd()))
	if err != nil {
		return nil, Identity{}
	}
	id, err := identify(int(f.Fd()))
	if err != nil {
		return nil, Identity{}
	}
	// It gets its name as a pin here, while it still has one: a file without any cannot be linked.
	link, err := s.pins.link(id, s.root, s.path)
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, m.path, unix.AT_FDCWD, link, 0)
	}
	if err == nil || errors.Is(err, unix.EEXIST) {
		s.pins.held.Store(link, true)
	}
	return f, id
}

// Mirrored tells up to which offset the current generation is mirrored; 0 when it is not.
func (s *Series) Mirrored() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mirror == nil || s.mirror.gen != s.last() {
		return 0
	}
	return s.mirror.off
}

// MirrorBytes tells what the mirror takes on the disk.
func (s *Series) MirrorBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st unix.Stat_t
	if s.mirror == nil || unix.Fstat(int(s.mirror.file.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}
