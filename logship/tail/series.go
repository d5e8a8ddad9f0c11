package tail

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Generation is one file in the life of a path, or one life of a file that was truncated. Its methods are safe for
// concurrent use until it is released.
type Generation struct {
	Seq   int64 // grows by one from the oldest of its Series
	ID    Identity
	file  *os.File
	known known                  // what was read, by which a copy is recognized
	copy  atomic.Pointer[copied] // holds the content of a file that was truncated
	owns  bool                   // the last that uses file closes it
	seen  atomic.Int64
	cut   atomic.Bool
	next  atomic.Pointer[Generation]
	unpin func()
	left  time.Time // when another took its place
	// packed is the .gz that the content was unpacked from, torn tells that it has not all of it.
	packed Identity
	torn   bool
}

// ReadAt reads at an offset; io.EOF is the end for now.
func (g *Generation) ReadAt(b []byte, off int64) (int, error) {
	if c := g.copy.Load(); c != nil {
		return c.file.ReadAt(b, off)
	}
	n, err := g.file.ReadAt(b, off)
	g.sawSize(off + int64(n))
	g.known.add(b[:n], off)
	return n, err
}

// content is the file that has the generation's bytes at their offsets.
func (g *Generation) content() *os.File {
	if c := g.copy.Load(); c != nil {
		return c.file
	}
	return g.file
}

// Next is the generation that took this one's place, or nil.
func (g *Generation) Next() *Generation { return g.next.Load() }

// Cut tells whether the file was truncated, and so was what held its content: what was not read of this generation is
// gone.
func (g *Generation) Cut() bool { return g.cut.Load() || g.spoiled() }

// Seen is the largest size the file was seen with.
func (g *Generation) Seen() int64 { return g.seen.Load() }

func (g *Generation) sawSize(n int64) {
	for old := g.seen.Load(); n > old && !g.seen.CompareAndSwap(old, n); old = g.seen.Load() {
	}
}

// Stat gives size and time of last change.
func (g *Generation) Stat() (size int64, changed time.Time, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(g.content().Fd()), &st); err != nil {
		return 0, time.Time{}, fmt.Errorf("stat log file: %w", err)
	}
	return st.Size, time.Unix(st.Mtim.Unix()), nil
}

// Busy tells whether somebody has the file open for writing: what was read to its end may still grow.
func (g *Generation) Busy() bool {
	// A read lease is refused with EAGAIN exactly while somebody does (fcntl(2), F_SETLEASE). It is given back at once.
	f := g.content()
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return false
	case errors.Is(err, unix.EAGAIN):
		return true
	}
	// No leases here (network file systems): what was not written to for a minute is believed to be finished.
	_, changed, err := g.Stat()
	return err == nil && time.Since(changed) < time.Minute
}

// Proof identifies the content before an offset: two files with equal heads differ in it sooner or later.
type Proof struct {
	Head uint64 `json:"head"` // hash of at most the first 256 bytes
	Tail uint64 `json:"tail"` // hash of at most the last 64 bytes before the offset
}

// Proof reads the proof for an offset.
func (g *Generation) Proof(off int64) Proof { return prove(g.content(), off) }

func prove(f *os.File, off int64) Proof {
	var buf [headBytes]byte
	part := func(from, n int64) uint64 {
		m, err := f.ReadAt(buf[:n], from)
		if int64(m) < n && err != nil {
			return 0 // shorter than the offset: no proof matches
		}
		return hash(buf[:n])
	}
	tail := min(off, tailBytes)
	return Proof{Head: part(0, min(off, headBytes)), Tail: part(off-tail, tail)}
}

func hash(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// Place is a saved place in a file.
type Place struct {
	Identity
	Proof
	Offset int64 `json:"offset"`
	Seen   int64 `json:"seen"` // the file's size when the place was saved
}

// All is the place behind everything that was seen of the generation. Of one that was cut nothing is proven.
func (g *Generation) All() Place {
	n := g.Seen()
	if !g.Cut() {
		return Place{Identity: g.Identity(), Proof: g.Proof(n), Offset: n, Seen: n}
	}
	return Place{Identity: g.ID, Offset: n, Seen: n}
}

// Series is a path and its generations. It is safe for concurrent use.
type Series struct {
	root  Root
	path  string
	pins  *Pins
	early bool
	// patient: a generation that was left is pinned by Pin, not at once.
	patient bool
	// taken tells whether a file belongs to another Series: with a glob such as * each path a rotation passes through
	// would else be followed for itself.
	taken func(Identity) bool
	// wanted are files to take in on the first look, whatever they are called now.
	wanted []Place

	mu      sync.Mutex
	gens    []*Generation
	past    []Identity // the newest that were released: a rotation leaves them beside the path
	seq     int64
	mirror  *mirror
	cuts    bool
	settled bool // the last Look found the last generation at the path
	rescues int
	full    int64 // bytes that the writer fills before it empties the file
	renewed bool  // the writer was seen to make new files instead
	// Where and how much may be unpacked; see Unpack.
	unpackDir   string
	unpackLimit int64
	told        int64 // the last generation's size when a change was last reported
	changed     time.Time
	absent      time.Time
}

// NewSeries makes a Series; Look opens what there is. saved are the places that readers will ask for by Find.
// A generation is pinned once another takes its place, or a little later (Patient); with early already when it is found, which suits runtimes that
// remove their logs and not files that logrotate works on (it passes over files with two links).
// taken tells which files belong to other Series; it is called with this one locked.
func NewSeries(root Root, file string, pins *Pins, early bool, taken func(Identity) bool, saved []Place) *Series {
	return &Series{root: root, path: file, pins: pins, early: early, taken: taken, wanted: saved}
}

// After makes generations count on from n, so that those of two runs are told apart. It is called before the first Look.
func (s *Series) After(n int64) { s.seq = n }

// Full says that the writer empties the file only when it has n bytes; 0: nobody knows when.
func (s *Series) Full(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = n
}

// Newest gives the number of the last generation, 0 when there was none yet, and since when something is known of what
// is in it, by which one sees whether it was emptied: now, when nothing is. settled is false while the path leads elsewhere,
// because it is gone or was renewed during the last Look.
func (s *Series) Newest() (seq int64, since time.Time, settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.last(); g != nil {
		since = g.known.began()
	}
	if since.IsZero() {
		since = time.Now()
	}
	return s.seq, since, s.settled
}

// Look compares the path with what is known, takes in new generations in the order of their birth, and notices a file
// that became shorter. It tells whether anything new is to be read.
func (s *Series) Look() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.root.Identify(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if s.absent.IsZero() {
			s.absent = time.Now()
		}
	case err != nil:
		return false, err
	default:
		s.absent = time.Time{}
	}
	defer func() { s.settled = err == nil && s.last() != nil && s.last().ID.Same(id) }()
	last := s.last()
	if err == nil && last != nil && last.ID.Same(id) {
		return s.grown(last)
	}
	if err != nil && last != nil {
		return s.grown(last) // renamed or removed, and nothing new yet
	}
	return s.takeIn(last, id, err == nil)
}

// Touch is Look for a file that was only written to: it costs one fstat.
func (s *Series) Touch() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.last(); last != nil {
		return s.grown(last)
	}
	return false, nil
}

func (s *Series) grown(g *Generation) (bool, error) {
	seen := g.Seen() // before the fstat: readers raise it meanwhile, and a size older than it would look truncated
	size, changed, err := g.Stat()
	if err != nil {
		return false, err
	}
	// One that was truncated and has grown again since the last look is told by its content.
	if size < seen || !changed.Equal(s.changed) && !g.known.still(g.file) {
		s.begin(g)
		return true, nil
	}
	s.changed = changed
	// Not g.Seen: one reader may have seen what another was never woken for.
	g.known.look(g.file, size)
	grew := size != s.told
	s.told = size
	g.sawSize(size)
	return grew, nil
}

// Truncated says that g's content is not what it was. Everybody may say so; the first counts.
func (s *Series) Truncated(g *Generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.next.Load() == nil {
		s.begin(g)
	} else {
		g.cut.Store(true) // also when the copy is not what it seemed
	}
}

// begin starts a new life of g's file. What was in it is read on from a copy, where there is one.
func (s *Series) begin(g *Generation) {
	s.cuts = true
	if !s.renewed {
		g.sawSize(s.full)
	}
	if !s.rescue(g) {
		g.cut.Store(true)
	}
	g.owns = false
	unpin := g.unpin
	g.unpin = nil
	s.append(&Generation{ID: g.ID, file: g.file, owns: true, unpin: unpin})
}

func (s *Series) append(g *Generation) {
	s.seq++
	g.Seq = s.seq
	if last := s.last(); last != nil {
		last.left = time.Now()
		if last.owns && !s.patient {
			s.pin(last)
		}
		last.next.Store(g)
	}
	if s.early {
		s.pin(g)
	}
	s.gens, s.told = append(s.gens, g), -1
	if size, _, err := g.Stat(); err == nil {
		g.sawSize(size)
		g.known.look(g.file, size)
	}
}

func (s *Series) pin(g *Generation) {
	if g.unpin == nil {
		g.unpin = s.pins.hold(g.file, g.ID, s.root, s.path)
	}
}

// Patient says that a generation is not to be pinned at once when another takes its place. The readers will have it in a
// moment, and logrotate (3.20 and later, without allowhardlink) refuses to pack a file with two names: it reports an error,
// and writes over that file with the next rotation.
func (s *Series) Patient(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patient = on
}

// Pin pins the generations that were left so long ago and are kept still.
func (s *Series) Pin(age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinLeft(age)
}

func (s *Series) pinLeft(age time.Duration) {
	for _, g := range s.gens {
		if g.owns && !g.left.IsZero() && time.Since(g.left) >= age {
			s.pin(g)
		}
	}
}

func (s *Series) last() *Generation {
	if len(s.gens) == 0 {
		return nil
	}
	return s.gens[len(s.gens)-1]
}

// takeIn opens what came after last: the current file, and the generations between that two quick rotations left
// beside it. With no last it also takes all older ones, and those that readers had places in, from the pins if need be.
func (s *Series) takeIn(last *Generation, current Identity, have bool) (bool, error) {
	found, err := s.candidates()
	if err != nil {
		return false, err
	}
	// Births come from the kernel's coarse clock (up to 10 ms); between equals the one that was left earlier is older, and
	// between those that were left in one tick the one with the older name.
	// A copy of a file that was truncated was born after that file and holds what it had before.
	copied := func(g *Generation) bool { return have && g.ID.Birth > current.Birth }
	slices.SortStableFunc(found, func(a, b *Generation) int {
		if have && (copied(a) || copied(b)) {
			if order := cmp.Compare(min(a.ID.Birth, current.Birth), min(b.ID.Birth, current.Birth)); order != 0 {
				return order
			}
			if a.ID.Same(current) || b.ID.Same(current) {
				return map[bool]int{true: 1, false: -1}[a.ID.Same(current)]
			}
		}
		if a.ID.Birth != b.ID.Birth {
			return cmp.Compare(a.ID.Birth, b.ID.Birth)
		}
		_, at, _ := a.Stat()
		_, bt, _ := b.Stat()
		return at.Compare(bt)
	})
	changed := false
	for _, g := range found {
		known := slices.ContainsFunc(s.gens, func(o *Generation) bool { return o.is(g.ID) })
		isCurrent := have && g.ID.Same(current)
		between := have && current.Birth != 0 && g.ID.Birth <= current.Birth &&
			(last == nil || g.ID.Birth >= last.ID.Birth) && !slices.ContainsFunc(s.past, g.ID.Same)
		asked := last == nil && (g.unpin != nil || slices.ContainsFunc(s.wanted, func(p Place) bool {
			return g.ID.Same(p.Identity) || copied(g) && p.Offset > 0 && g.Proof(p.Offset) == p.Proof
		}))
		// A copy that copytruncate left was born after the file it copies, and is none unless somebody was in it.
		if known || s.taken(g.ID) || !isCurrent && !between && !asked {
			_ = g.file.Close()
			continue
		}
		s.append(g)
		s.renewed = s.renewed || last != nil
		changed = true
	}
	return changed, nil
}

// candidates opens every file that may be a generation, each once; the older first, by their names.
func (s *Series) candidates() ([]*Generation, error) {
	// What is renamed between the listing of names and their opening would be behind none of them. So the names are gone
	// through until they lead to the same files twice.
	var out []*Generation
	var names []Identity
	for range 20 {
		before := names
		var err error
		if out, names, err = s.beside(out); err != nil {
			return out, err
		}
		if slices.Equal(names, before) {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b *Generation) int {
		return cmp.Compare(slices.Index(names, a.ID), slices.Index(names, b.ID)) // -1: gone meanwhile, as the oldest do
	})
	if len(s.gens) > 0 {
		return out, nil
	}
	find := func(id Identity) *Generation {
		if i := slices.IndexFunc(out, func(o *Generation) bool { return o.ID.Same(id) }); i >= 0 {
			return out[i]
		}
		return nil
	}
	for _, p := range s.pins.all(s.root, s.path) {
		if g := find(p.id); g != nil {
			g.unpin = p.unpin
			_ = p.file.Close()
			continue
		}
		out = append(out, &Generation{ID: p.id, file: p.file, owns: true, unpin: p.unpin})
	}
	for _, p := range s.wanted {
		if find(p.Identity) != nil {
			continue
		}
		if f := s.byIdentity(p.Identity); f != nil {
			out = append(out, &Generation{ID: p.Identity, file: f, owns: true})
		}
	}
	return append(out, s.unpacked(find)...), nil
}

// beside opens what lies beside the path, and the path, as far as it is not in out. It gives what the names lead to, the
// older first.
func (s *Series) beside(out []*Generation) (_ []*Generation, names []Identity, err error) {
	paths, err := s.root.siblings(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, nil, err
	}
	for _, p := range append(paths, s.path) {
		f, err := s.root.Open(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotRegular) {
			continue
		}
		if err != nil {
			return out, nil, err
		}
		id, err := identify(int(f.Fd()))
		if err == nil {
			names = append(names, id)
		}
		if err != nil || slices.ContainsFunc(out, func(o *Generation) bool { return o.ID.Same(id) }) {
			_ = f.Close()
			continue
		}
		out = append(out, &Generation{ID: id, file: f, owns: true})
	}
	return out, names, nil
}

// byIdentity finds a file beside the path, whatever it was renamed to.
func (s *Series) byIdentity(id Identity) *os.File {
	dir := path.Dir(s.path)
	names, _, err := s.root.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, n := range names {
		if have, err := s.root.Identify(path.Join(dir, n)); err != nil || !have.Same(id) {
			continue
		}
		if f, err := s.root.Open(path.Join(dir, n)); err == nil {
			if have, err := identify(int(f.Fd())); err == nil && have.Same(id) {
				return f
			}
			_ = f.Close()
		}
	}
	return nil
}

// OpenIdentity opens a file that is, or was, at path, whatever it was renamed to since. It changes nothing.
func OpenIdentity(root Root, path string, id Identity) (*os.File, error) {
	if f := (&Series{root: root, path: path}).byIdentity(id); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("find inode %d beside %s: %w", id.Ino, path, fs.ErrNotExist)
}

// Prove gives the proof for an offset of a file.
func Prove(f *os.File, off int64) Proof { return prove(f, off) }

// Find gives the generation that a saved place lies in. When the place's content is not there, it gives the oldest
// generation that came after it, to be read from its start, found false, and how many bytes are known to be lost.
// g is nil when there is nothing at all yet.
func (s *Series) Find(p Place) (g *Generation, found bool, lost int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost = max(0, p.Seen-p.Offset)
	for _, o := range s.gens {
		size, _, err := o.Stat()
		if !o.is(p.Identity) || err != nil {
			continue
		}
		if (size >= p.Seen || o.torn) && o.Proof(p.Offset) == p.Proof {
			return o, true, 0
		}
		// It was truncated. Whoever did that may have copied it before.
		for _, c := range s.gens {
			if size, _, err := c.Stat(); c.ID.Birth > o.ID.Birth && c.Seq < o.Seq && err == nil && size >= p.Offset && c.Proof(p.Offset) == p.Proof {
				return c, true, max(0, p.Seen-size)
			}
		}
		return o, false, max(lost, s.full-p.Offset)
	}
	for _, o := range s.gens {
		if o.ID.Birth >= p.Birth {
			return o, false, lost
		}
	}
	return nil, false, lost
}

// Contains tells whether a generation has the place and what lies before it, whatever it was called then.
func (s *Series) Contains(p Place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.gens, func(g *Generation) bool {
		size, _, err := g.Stat()
		return err == nil && !g.Cut() && size >= p.Offset && g.Proof(p.Offset) == p.Proof
	})
}

// Kept gives the generations, oldest first.
func (s *Series) Kept() []*Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gens)
}

// First is the oldest generation that is kept, or nil.
func (s *Series) First() *Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gens) == 0 {
		return nil
	}
	return s.gens[0]
}

// Last is the generation that is written to, or nil.
func (s *Series) Last() *Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last()
}

// Has tells whether id is, or was lately, a generation of the series.
func (s *Series) Has(id Identity) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.past, id.Same) || slices.ContainsFunc(s.gens, func(g *Generation) bool { return g.is(id) })
}

// Get gives the generation seq, or nil when it was released.
func (s *Series) Get(seq int64) *Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gens {
		if g.Seq == seq {
			return g
		}
	}
	return nil
}

// Generations tells how many are kept open.
func (s *Series) Generations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.gens)
}

// Absent tells for how long the path has been gone; 0 when it is there.
func (s *Series) Absent(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.absent.IsZero() {
		return 0
	}
	return now.Sub(s.absent)
}

// Release lets go of the generations, but never of the last, for which done is true: every reader has them to the end,
// durably. It gives the bytes that were added to them after they had been read, which nobody will read.
func (s *Series) Release(done func(*Generation) bool) (late int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gens) < 2 {
		return 0
	}
	older, last := s.gens[:len(s.gens)-1], s.last()
	kept := make([]*Generation, 0, len(s.gens))
	for _, g := range older {
		if !done(g) {
			kept = append(kept, g)
			continue
		}
		if size, _, err := g.Stat(); err == nil && !g.Cut() {
			late += max(0, size-g.Seen())
		}
		g.release(true)
		s.past = append(s.past[max(0, len(s.past)-15):], g.Identity())
	}
	s.gens = append(kept, last)
	return late
}

// Close closes every descriptor. drop also removes the pins: nothing of the series is wanted any more.
func (s *Series) Close(drop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !drop {
		s.pinLeft(0)
	}
	for _, g := range s.gens {
		g.release(drop)
	}
	s.gens = nil
	s.dropMirror()
}

func (g *Generation) release(drop bool) {
	if g.owns {
		_ = g.file.Close()
	}
	if c := g.copy.Load(); c != nil {
		_ = c.file.Close()
		if drop && c.unpin != nil {
			c.unpin()
		}
	}
	if drop && g.unpin != nil {
		g.unpin()
	}
}
