package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Copy reads every byte of the volume. It works everywhere, takes its time and its space, and is not of one moment.
func Copy() Driver { return copier{name: "copy", fill: copyData} }

// Reflink shares the files' blocks with the volume: every name is read, no byte is. It is not of one moment either, but
// each file is.
func Reflink() Driver { return copier{name: "reflink", fill: cloneData, probe: probeClone} }

// copier makes a tree entry by entry; fill gives a file its content.
type copier struct {
	name  string
	fill  func(ctx context.Context, to, from *os.File, n *tree.Node) error
	probe func(src, room *tree.Dir) error
}

func (c copier) Name() string { return c.name }

func (c copier) Fits(src, room *tree.Dir) error {
	if c.probe == nil {
		return nil
	}
	return c.probe(src, room)
}

func (c copier) Take(ctx context.Context, src Source, room *tree.Dir, name string) (Result, error) {
	root, err := src.Node()
	if err != nil {
		return Result{}, err
	}
	to, err := room.Mkdir(name)
	if err != nil {
		return Result{}, err
	}
	defer to.Close()
	self, err := src.ID()
	if err != nil {
		return Result{}, err
	}
	j := job{copier: c, ctx: ctx, root: to, dev: self.Dev, hide: src.Hide, meter: src.Meter, links: map[tree.Inode]first{}}
	if err := j.dir(src.Dir, to, ""); err != nil {
		return j.result, err
	}
	j.result.Entries++
	j.meter.add(1, 0)
	if err := tree.Apply(to.Fd(), root); err != nil {
		return j.result, err
	}
	return j.result, nil
}

func (c copier) Remove(ctx context.Context, room *tree.Dir, name string) error {
	return room.Remove(ctx, name)
}

// job is one Take.
type job struct {
	copier
	ctx    context.Context
	root   *tree.Dir
	dev    uint64
	hide   tree.Inode
	meter  *Meter
	links  map[tree.Inode]first // of entries with several names
	result Result
}

// first is where the first name of an entry was put, and what it was then. A number may have gone to another entry when
// the volume changes meanwhile; that one has another time or size.
type first struct {
	path  string
	mtime tree.Time
	size  int64
}

func (j *job) dir(from, to *tree.Dir, path string) error {
	names, err := from.Names()
	if err != nil {
		return fmt.Errorf("list %s: %w", show(path), err)
	}
	for _, name := range names {
		if err := j.ctx.Err(); err != nil {
			return context.Cause(j.ctx)
		}
		if err := j.entry(from, to, join(path, name), name); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) entry(from, to *tree.Dir, path, name string) (err error) {
	e, err := from.Open(name)
	if errors.Is(err, fs.ErrNotExist) { // the volume lives on
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if e.Kind == tree.Directory && e.ID == j.hide {
		return nil
	}
	j.result.Entries++
	j.meter.add(1, 0)
	if f, ok := j.links[e.ID]; ok && e.Kind != tree.Directory && f.mtime == e.MTime && f.size == e.Size {
		return to.Link(j.root, f.path, name)
	}
	switch e.Kind {
	case tree.Directory:
		return j.subdir(e, to, path)
	case tree.File:
		err = j.file(e, to, path)
	default:
		err = to.Make(e.Node)
	}
	if err == nil && e.Links > 1 {
		j.links[e.ID] = first{path, e.MTime, e.Size}
	}
	return err
}

func (j *job) subdir(e *tree.Entry, to *tree.Dir, path string) error {
	made, err := to.Mkdir(e.Name)
	if err != nil {
		return err
	}
	defer made.Close()
	if e.ID.Dev != j.dev {
		j.result.Skipped = append(j.result.Skipped, path)
		return tree.Apply(made.Fd(), e.Node)
	}
	sub, err := e.Dir()
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := j.dir(sub, made, path); err != nil {
		return err
	}
	return tree.Apply(made.Fd(), e.Node)
}

// tries is how often a file that changes under our eyes is read before its copy is called torn.
const tries = 3

func (j *job) file(e *tree.Entry, to *tree.Dir, path string) error {
	for try := 1; ; try++ {
		torn, err := j.fileOnce(e, to)
		if err != nil {
			return fmt.Errorf("copy %s: %w", show(path), err)
		}
		if !torn {
			break
		}
		if try == tries {
			j.result.Changed = append(j.result.Changed, path)
			break
		}
		if err := to.Remove(j.ctx, e.Name); err != nil {
			return err
		}
	}
	j.result.Bytes += e.Size
	j.meter.add(0, e.Size)
	return nil
}

func (j *job) fileOnce(e *tree.Entry, to *tree.Dir) (torn bool, err error) {
	from, err := e.File()
	if err != nil {
		return false, err
	}
	defer from.Close()
	made, err := to.Create(e.Name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, made.Close()) }()
	before, err := stamp(from)
	if err != nil {
		return false, err
	}
	if err := j.fill(j.ctx, made, from, &e.Node); err != nil {
		return false, err
	}
	after, err := stamp(from)
	if err != nil {
		return false, err
	}
	e.Size, e.MTime = after.size, after.mtime
	return before != after, tree.Apply(int(made.Fd()), e.Node)
}

// version of a file, as far as its inode shows.
type version struct {
	size         int64
	mtime, ctime tree.Time
}

func stamp(f *os.File) (version, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return version{st.Size, tree.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}, tree.Time{Sec: st.Ctim.Sec, Nsec: uint32(st.Ctim.Nsec)}}, err
}

// copyPiece bounds one copy_file_range(2), so that the end of ctx is seen.
const copyPiece = 64 << 20

func copyData(ctx context.Context, to, from *os.File, n *tree.Node) error {
	if err := to.Truncate(n.Size); err != nil {
		return err
	}
	for _, x := range n.Data() {
		if err := copyExtent(ctx, to, from, x); err != nil {
			return err
		}
	}
	return nil
}

func copyExtent(ctx context.Context, to, from *os.File, x tree.Extent) error {
	in, out := x.Off, x.Off
	for end := x.Off + x.Len; in < end; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(min(end-in, copyPiece)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		// Across file systems, or where the file system has no such call.
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			return copyBytes(ctx, to, from, tree.Extent{Off: in, Len: end - in})
		case err != nil:
			return os.NewSyscallError("copy_file_range", err)
		case n == 0: // it was cut meanwhile
			return nil
		}
	}
	return nil
}

func copyBytes(ctx context.Context, to, from *os.File, x tree.Extent) error {
	buf := make([]byte, min(x.Len, 1<<20))
	for x.Len > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Pread(int(from.Fd()), buf[:min(x.Len, int64(len(buf)))], x.Off)
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if n == 0 {
			return nil
		}
		if _, err := to.WriteAt(buf[:n], x.Off); err != nil {
			return err
		}
		x.Off, x.Len = x.Off+int64(n), x.Len-int64(n)
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// show writes a path whose bytes may be anything.
func show(path string) string {
	if path == "" {
		return "the volume's root"
	}
	return fmt.Sprintf("%q", path)
}
