package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Reader reads one cgroup. It is safe for concurrent use; one Read waits for another.
type Reader struct {
	tree  *Tree
	mu    sync.Mutex
	files []file
	held  int // descriptors granted by the budget; 0 while it refuses
	fds   fdDirs
	ended atomic.Bool

	watched   bool // limits are read again only when they changed
	unwatched bool // that cannot be had
	changed   atomic.Bool
	watches   []int32 // guarded by the lock of Tree.watches
}

const (
	closed   = -1
	halfPage = 2048 // of the smallest pages
)

// file is one of a cgroup's. There are thousands of them, so it is small.
type file struct {
	*format
	dir string
	// text is what the file shows, once it is known, behind the split; before that is the text of the file that it follows.
	text   []byte
	split  int32
	fd     int32
	known  bool // it need not be read
	absent bool // this kernel, or this cgroup, has no such file
	v2     bool // in the unified hierarchy
	pids   bool // its lines are processes whose open files are counted
}

// path is made when it is asked for: a thousand containers have twenty thousand of them.
func (f *file) path() string { return filepath.Join(f.dir, f.name) }

// Buffer is the memory that Reads share, one Read at a time. The zero value is ready.
type Buffer struct{ b []byte }

// Read fills s with what the cgroup shows now. It blocks only as long as the kernel takes to answer.
//
// A file that is not there leaves its values unknown. A file that cannot be read or understood does too, and the error
// names it; the other files are still in s. ErrGone means that the cgroup was removed, and s says nothing.
func (r *Reader) Read(b *Buffer, s *Stats) error {
	r.mu.Lock()
	defer func() { r.mu.Unlock(); r.sweep() }()
	kept := r.held > 0
	err := r.read(b, s)
	if kept && errors.Is(err, ErrGone) {
		// A container that was restarted has a new cgroup of the same name; ours is the old one.
		err = r.read(b, s)
	}
	return err
}

// ReadLast is Read for a cgroup that may be removed meanwhile: what was read before that stays in s. ErrGone then comes
// with all that there ever will be.
func (r *Reader) ReadLast(b *Buffer, s *Stats) error {
	r.mu.Lock()
	defer func() { r.mu.Unlock(); r.sweep() }()
	return r.readKeeping(b, s)
}

// Close gives the descriptors back. It does not wait for a Read that hangs in the kernel: that one gives them back when
// it returns. Reads after Close answer ErrGone. It may be called twice.
func (r *Reader) Close() {
	r.ended.Store(true)
	r.sweep()
}

// sweep drops what an ended Reader holds, unless somebody holds the lock, who will sweep after unlocking it.
func (r *Reader) sweep() {
	if r.ended.Load() && r.mu.TryLock() {
		r.drop()
		r.mu.Unlock()
	}
}

func (r *Reader) read(b *Buffer, s *Stats) error {
	err := r.readKeeping(b, s)
	if errors.Is(err, ErrGone) {
		s.reset()
	}
	return err
}

func (r *Reader) readKeeping(b *Buffer, s *Stats) error {
	s.reset()
	if r.ended.Load() {
		return ErrGone
	}
	r.watch()
	r.claim()
	var bad error
	for i := range r.files {
		f := &r.files[i]
		var follows *file
		if i+1 < len(r.files) && r.files[i+1].follows {
			follows = &r.files[i+1]
		}
		err := r.one(f, follows, b, s)
		switch {
		case err == nil:
		case errors.Is(err, ErrGone):
			r.drop()
			return err
		default:
			bad = errors.Join(bad, err)
		}
	}
	return bad
}

// one reads f. What follows f must be read as well unless f shows what it showed before.
func (r *Reader) one(f, follows *file, b *Buffer, s *Stats) error {
	known := follows != nil && follows.known
	if follows != nil {
		follows.known = false // until f is seen to be as it was
	}
	if f.absent {
		return nil
	}
	if f.known {
		return r.parse(f, f.text[f.split:], s)
	}
	fd := int(f.fd)
	if fd == closed {
		var err error
		if fd, err = r.open(f); err != nil || f.absent {
			return err
		}
		if f.fd == closed {
			defer unix.Close(fd)
		}
	}
	text, err := b.read(fd, f.long)
	switch {
	case errors.Is(err, unix.ENODEV): // kernfs: the directory was removed under the open file
		return ErrGone
	case errors.Is(err, unix.EOPNOTSUPP): // the file exists but not for this kind of cgroup
		return nil
	case err != nil:
		return &os.PathError{Op: "read", Path: f.path(), Err: err}
	}
	if follows != nil {
		if bytes.Equal(text, follows.text[:follows.split]) {
			follows.known = known
		} else {
			follows.text, follows.split = append(follows.text[:0], text...), int32(len(text))
		}
	}
	if err := r.parse(f, text, s); err != nil {
		return err
	}
	if f.known = f.limit && r.watched || f.follows && f.split > 0 && r.held > 0; f.known {
		f.text = append(f.text[:f.split], text...)
	}
	return nil
}

func (r *Reader) parse(f *file, text []byte, s *Stats) error {
	if err := f.parse(text, s); err != nil {
		return fmt.Errorf("parse %s: %w", f.path(), err)
	}
	if f.pids {
		s.Pids.Files = r.openFiles(text)
		s.Pids.Sockets = r.tree.openSockets(text)
	}
	return nil
}

// watch makes sure that the limits are watched, where that can be, and forgets those that were written.
func (r *Reader) watch() {
	if w := r.tree.watches; w != nil && !r.watched && !r.unwatched {
		r.changed.Store(true)
		r.watched = w.add(r)
		r.unwatched = !r.watched
	}
	if r.watched && r.changed.Swap(false) {
		for i := range r.files {
			if f := &r.files[i]; f.limit {
				f.known = false
			}
		}
	}
}

// keeps tells whether f stays open between Reads, when the budget covers it.
func (r *Reader) keeps(f *file) bool { return !f.absent && !(f.limit && r.watched) }

// open opens f, to stay open when the budget covers it. A file that is missing in a cgroup that is there is absent.
func (r *Reader) open(f *file) (int, error) {
	fd, err := openRead(f.path())
	switch {
	case err == nil && r.held > 0 && r.keeps(f):
		f.fd = int32(fd)
		return fd, nil
	case err == nil && !r.keeps(f):
		return fd, nil
	case err == nil:
		r.tree.opened.Add(1)
		return fd, nil
	case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV):
		return closed, &os.PathError{Op: "open", Path: f.path(), Err: err}
	}
	if _, err := os.Stat(f.dir); errors.Is(err, fs.ErrNotExist) {
		return closed, ErrGone
	}
	if r.held > 0 && r.keeps(f) {
		r.hold(-1)
	}
	f.absent = true
	return closed, nil
}

// claim asks the budget for what the files need. It is asked at each Read, so a Reader that was refused keeps its files
// once others have closed theirs.
func (r *Reader) claim() {
	if r.held > 0 {
		return
	}
	n := 0
	for i := range r.files {
		if r.keeps(&r.files[i]) {
			n++
		}
	}
	if n > 0 && r.tree.budget.Acquire(n) {
		r.hold(n)
	}
}

// hold notes that n more descriptors are held, or fewer, which it gives back to the budget.
func (r *Reader) hold(n int) {
	r.held += n
	r.tree.kept.Add(int64(n))
	if n < 0 {
		r.tree.budget.Release(-n)
	}
}

// drop closes what is open and forgets which files were absent: a cgroup that is made again may have them.
func (r *Reader) drop() {
	r.closeDirs()
	for i := range r.files {
		f := &r.files[i]
		if f.fd != closed {
			_ = unix.Close(int(f.fd)) // opened for reading: there is nothing to lose
			f.fd = closed
		}
		f.absent, f.known, f.text, f.split = false, false, nil, 0
	}
	r.hold(-r.held)
	if r.watched {
		r.tree.watches.mu.Lock()
		r.tree.watches.remove(r)
		r.tree.watches.mu.Unlock()
	}
	r.watched, r.unwatched = false, false
}

func openRead(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// read gives the text of the file from its start. The kernel gives a file of one record whole when the buffer is large
// enough, so one pread does. Of a long file it gives whole records up to about a page, so only a piece of less than half
// a page is surely the last.
func (b *Buffer) read(fd int, long bool) ([]byte, error) {
	if b.b == nil {
		b.b = make([]byte, 16<<10)
	}
	n := 0
	for {
		if n == len(b.b) {
			b.b = append(b.b, make([]byte, len(b.b))...)
		}
		got, err := unix.Pread(fd, b.b[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		n += got
		if got == 0 || n < len(b.b) && (!long || got < halfPage) {
			return b.b[:n], nil
		}
	}
}
