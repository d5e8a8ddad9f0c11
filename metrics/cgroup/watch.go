package cgroup

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// watches tell which cgroups' limits somebody may have changed, so that limits are not read again at each scrape: the
// kernel changes none of them by itself. Each write to a file of a cgroup is known here before write(2) returns to its
// writer, through whichever mount and from whichever namespace it comes, because all mounts of a hierarchy share one
// superblock. Shown by TestALimitIsNewAtOnceWhoeverWroteIt.
type watches struct {
	mu   sync.Mutex
	fd   int                 // an inotify instance; it ends with the Tree
	of   map[int32][]*Reader // as a rule one
	text []byte
}

const watched = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR

// Watch makes Readers read a limit again only when somebody has written to its cgroup; Refresh must then be called before
// Reads. Where the kernel grants no watch all is read each time. It is called before the first Reader is made.
func (t *Tree) Watch() error {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	t.watches = &watches{fd: fd, of: map[int32][]*Reader{}, text: make([]byte, 16<<10)}
	runtime.AddCleanup(t.watches, func(fd int) { _ = unix.Close(fd) }, fd)
	return nil
}

// Refresh learns which limits have been written since it was last called: a Read that begins after it shows them. It does
// not block.
func (t *Tree) Refresh() {
	if t.watches != nil {
		t.watches.refresh()
	}
}

// Refresh is that of the Reader's Tree.
func (r *Reader) Refresh() { r.tree.Refresh() }

func (w *watches) refresh() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n, err := unix.Read(w.fd, w.text)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < unix.SizeofInotifyEvent {
			return // EAGAIN: nobody wrote
		}
		for b := w.text[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask, name := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			w.changed(wd, mask)
			b = b[min(len(b), unix.SizeofInotifyEvent+int(name)):]
		}
	}
}

func (w *watches) changed(wd int32, mask uint32) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		for _, rs := range w.of {
			for _, r := range rs {
				r.changed.Store(true)
			}
		}
		return
	}
	for _, r := range w.of[wd] {
		r.changed.Store(true)
	}
	if mask&unix.IN_IGNORED != 0 { // the directory is gone
		delete(w.of, wd)
	}
}

// add watches the directories of r's limits, and those above them in the unified hierarchy, where taking a controller
// away and giving it back makes all limits new. It answers false, with nothing watched, where that cannot be.
func (w *watches) add(r *Reader) bool {
	dirs := map[string]bool{}
	for i := range r.files {
		if f := &r.files[i]; f.limit {
			dirs[f.dir] = true
			if f.v2 {
				dirs[filepath.Dir(f.dir)] = true
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir := range dirs {
		var fs unix.Statfs_t
		wd, err := -1, unix.Statfs(dir, &fs)
		if err == nil && fs.Type != unix.FUSE_SUPER_MAGIC { // a file system whose files change by themselves
			wd, err = unix.InotifyAddWatch(w.fd, dir, watched)
		}
		if err != nil || wd < 0 {
			w.remove(r)
			return false
		}
		if at := int32(wd); !slices.Contains(r.watches, at) { // two hierarchies may be one
			w.of[at], r.watches = append(w.of[at], r), append(r.watches, at)
		}
	}
	return len(dirs) > 0
}

// remove takes r's watches back. w is locked.
func (w *watches) remove(r *Reader) {
	for _, wd := range r.watches {
		rest := slices.DeleteFunc(w.of[wd], func(o *Reader) bool { return o == r })
		if w.of[wd] = rest; len(rest) == 0 {
			delete(w.of, wd)
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // the kernel does it itself when the directory goes
		}
	}
	r.watches = nil
}
