package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// What Restore refuses.
var (
	ErrNotEmpty = errors.New("the target directory is not empty")
	ErrBusy     = errors.New("another restore works on the target directory")
)

// IncompleteError is returned when everything was restored but some attributes, which the target's file system does not
// take.
type IncompleteError struct{ Lost []string }

func (e *IncompleteError) Error() string {
	const show = 5
	list, more := e.Lost, ""
	if len(list) > show {
		list, more = list[:show], fmt.Sprintf("; and %d more", len(e.Lost)-show)
	}
	return fmt.Sprintf("restored, but without what the target's file system refused: %s%s", strings.Join(list, "; "), more)
}

// Restore brings a backup back into the directory target, which is made when it is missing, must be empty else, and
// becomes the root of the tree: it gets its owner, mode and time. Every file's content is compared with the hash that
// was taken when it was backed up. When it returns nil the tree is whole and durable. What an interrupted Restore left
// in target is cleared first.
func (r *Repository) Restore(ctx context.Context, id ID, target string, say func(Progress)) (Counts, error) {
	m, err := r.manifest(ctx, id)
	if err != nil {
		return Counts{}, err
	}
	root, err := m.root()
	if err != nil {
		return Counts{}, err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return Counts{}, fmt.Errorf("make target: %w", err)
	}
	to, err := tree.Root(target)
	if err != nil {
		return Counts{}, err
	}
	defer to.Close()
	if err := r.claim(ctx, to, target); err != nil {
		return Counts{}, fmt.Errorf("restore to %s: %w", target, err)
	}
	s := &restore{repository: r, root: to, links: map[LinkID]string{}}
	s.meter.of = m.Counts
	stop := s.meter.report(ctx, say)
	defer stop()
	if err := s.tree(ctx, root, to); err != nil {
		return s.meter.counts(), fmt.Errorf("restore %s to %s: %w", id, target, err)
	}
	if got := s.meter.counts(); got != m.Counts {
		return got, fmt.Errorf("restore %s to %s: the backup has %+v, restored were %+v", id, target, m.Counts, got)
	}
	if len(s.lost) > 0 {
		return m.Counts, &IncompleteError{s.lost}
	}
	return m.Counts, nil
}

// claimed marks a target while it is being restored. It is not part of any backup (package tree passes it over).
const claimed = "trusted.fairlead.restoring"

// claim makes sure that target is ours to fill: empty, or left by an interrupted Restore.
func (r *Repository) claim(ctx context.Context, to *tree.Dir, target string) error {
	// The kernel gives the lock back with the descriptor, when the agent dies too.
	if err := unix.Flock(to.Fd(), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return ErrBusy
	} else if err != nil {
		return os.NewSyscallError("flock", err)
	}
	names, err := to.Names()
	if err != nil {
		return err
	}
	_, err = unix.Fgetxattr(to.Fd(), claimed, nil)
	interrupted := err == nil
	if len(names) > 0 && !interrupted {
		return fmt.Errorf("%w: %d entries, the first is %q", ErrNotEmpty, len(names), names[0])
	}
	step("claim")
	if err := unix.Fsetxattr(to.Fd(), claimed, []byte("1"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return os.NewSyscallError("setxattr "+claimed, err)
	}
	if interrupted {
		step("clear")
		if err := to.Clear(ctx); err != nil {
			return fmt.Errorf("clear what an interrupted restore left: %w", err)
		}
	}
	return bare(to)
}

// bare takes from the target what its new entries would inherit, and what the backup's root may not have.
func bare(to *tree.Dir) error {
	n, err := to.Node()
	if err != nil {
		return err
	}
	for _, x := range n.Xattrs {
		err := unix.Fremovexattr(to.Fd(), x.Name)
		if err != nil && !strings.HasPrefix(x.Name, "security.") { // a label that the kernel itself gives stays
			return fmt.Errorf("remove attribute %s of the target: %w", x.Name, err)
		}
	}
	return os.NewSyscallError("chmod", unix.Fchmod(to.Fd(), 0o700))
}

// restore is one Restore.
type restore struct {
	repository *Repository
	root       *tree.Dir
	meter      meter
	links      map[LinkID]string // where the first name is

	mu   sync.Mutex
	lost []string
}

func (s *restore) tree(ctx context.Context, root Entry, to *tree.Dir) error {
	if root.Kind != tree.Directory {
		return fmt.Errorf("the backup's root is %q, not a directory", root.Kind)
	}
	if err := s.dir(ctx, root, to, ""); err != nil {
		return err
	}
	s.meter.entries.Add(1)
	step("root")
	if err := s.apply(to.Fd(), root.Node); err != nil {
		return err
	}
	if err := unix.Syncfs(to.Fd()); err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	step("unclaim")
	if err := unix.Fremovexattr(to.Fd(), claimed); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		return os.NewSyscallError("removexattr "+claimed, err)
	}
	return nil
}

// apply sets attributes and keeps in mind those that the file system refuses.
func (s *restore) apply(fd int, n tree.Node) error {
	return s.note(tree.Apply(fd, n))
}

func (s *restore) note(err error) error {
	var refused *tree.LostError
	if !errors.As(err, &refused) || !only(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = append(s.lost, strings.ReplaceAll(err.Error(), "\n", "; "))
	return nil
}

// only tells whether all that err joins are attributes that were refused.
func only(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !only(e) {
				return false
			}
		}
		return true
	}
	_, ok := err.(*tree.LostError) //nolint:errorlint // the question is what this one is, not what it wraps
	return ok
}

// dir restores what is in a directory: its files, a few at a time, then the directories below.
func (s *restore) dir(ctx context.Context, e Entry, to *tree.Dir, path string) error {
	object, err := s.repository.open(ctx, e.Object)
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	defer object.Close()
	d, err := newDirectoryReader(object)
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	var dirs []Entry
	g, free := agent.NewGroup(ctx), make(chan struct{}, together)
	readErr := func() error {
		for {
			e, err := d.next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("directory %q: %w", path, err)
			}
			if e.Kind == tree.Directory {
				dirs = append(dirs, e)
				continue
			}
			if err := s.leaf(ctx, g, free, e, to, path); err != nil {
				return err
			}
		}
	}()
	if err := errors.Join(readErr, g.Wait()); err != nil {
		return err
	}
	for _, e := range dirs {
		if err := s.subdir(ctx, e, to, path); err != nil {
			return err
		}
	}
	return nil
}

// leaf makes an entry that is no directory. The data of a file are left to a goroutine of g.
func (s *restore) leaf(ctx context.Context, g *agent.Group, free chan struct{}, e Entry, to *tree.Dir, path string) error {
	step("entry")
	s.meter.entries.Add(1)
	if e.Kind == tree.File {
		s.meter.files.Add(1)
	}
	if e.Link != (LinkID{}) {
		if first, known := s.links[e.Link]; known {
			return to.Link(s.root, first, e.Name)
		}
		s.links[e.Link] = join(path, e.Name)
	}
	if e.Kind != tree.File {
		return s.note(to.Make(e.Node))
	}
	f, err := to.Create(e.Name)
	if err != nil {
		return err
	}
	select {
	case free <- struct{}{}:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), f.Close())
	}
	g.Go(func(ctx context.Context) error {
		defer func() { <-free }()
		step("data")
		err := s.repository.content(ctx, e, f, &s.meter)
		if err == nil {
			step("attributes")
			err = s.apply(int(f.Fd()), e.Node)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("file %q: %w", join(path, e.Name), err)
		}
		return nil
	})
	return nil
}

func (s *restore) subdir(ctx context.Context, e Entry, to *tree.Dir, path string) error {
	step("directory")
	sub, err := to.Mkdir(e.Name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := s.dir(ctx, e, sub, join(path, e.Name)); err != nil {
		return err
	}
	s.meter.entries.Add(1)
	return s.apply(sub.Fd(), e.Node)
}

// ErrContent is returned when a file's content is not what was backed up.
var ErrContent = errors.New("the content is not what was backed up")

// content reads a file's data and compares its hash. It writes them to f, holes left out, unless f is nil.
func (r *Repository) content(ctx context.Context, e Entry, f *os.File, m *meter) error {
	object, err := r.open(ctx, e.Object)
	if err != nil {
		return err
	}
	defer object.Close()
	if f != nil {
		if err := f.Truncate(e.Size); err != nil {
			return err
		}
	}
	hash, buf := blake3.New(), make([]byte, min(max(e.Size, 1), bufferBytes))
	for _, x := range e.Data() {
		for off, end := x.Off, x.Off+x.Len; off < end; {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			n, err := io.ReadFull(object, buf[:min(int64(len(buf)), end-off)])
			if err != nil {
				return fmt.Errorf("%w: its data end at %d: %w", ErrContent, off+int64(n), err)
			}
			if f != nil {
				if _, err := f.WriteAt(buf[:n], off); err != nil {
					return err
				}
			}
			_, _ = hash.Write(buf[:n]) // never fails
			off += int64(n)
			m.bytes.Add(int64(n))
		}
	}
	var got Hash
	hash.Sum(got[:0])
	if got != e.Hash {
		return fmt.Errorf("%w: BLAKE3 %x, expected %x", ErrContent, got, e.Hash)
	}
	if n, _ := object.Read(buf[:1]); n > 0 {
		return fmt.Errorf("%w: there is more than %d bytes", ErrContent, e.Size)
	}
	return nil
}
