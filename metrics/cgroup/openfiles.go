package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mostProcesses bounds what counting open files may cost: a microsecond or two for each process.
const mostProcesses = 1000

// CountFiles makes Readers count the open files of a cgroup's processes, which are below the directory proc. Linux tells
// their number as the size of /proc/PID/fd since 6.2; before that each directory would have to be read, as cAdvisor
// does, so there it does nothing. It is called before the first Reader is made.
func (t *Tree) CountFiles(proc string) {
	if st, err := os.Stat(filepath.Join(proc, "self/fd")); err == nil && st.Size() > 0 {
		t.proc = []byte(filepath.Clean(proc) + "/")
	}
}

// fdDirs are the directories /proc/PID/fd of a cgroup's few processes, kept open: to ask an open one for its size costs a
// fifth of what finding it by path does. An open one belongs to its process for ever: when that has ended it answers so,
// whoever has the number by then. It keeps nothing of the process alive but the number.
type fdDirs struct {
	procs []byte // the text of cgroup.procs that dirs belong to
	dirs  []int
}

// mostKept bounds how many processes a cgroup may have for that.
const mostKept = 4

// openFiles is that of the Tree, by directories that are kept open where there are few.
func (r *Reader) openFiles(procs []byte) Value {
	d := &r.fds
	if !bytes.Equal(procs, d.procs) {
		r.closeDirs()
		r.openDirs(procs)
	}
	if len(d.dirs) == 0 {
		return r.tree.openFiles(procs)
	}
	sum := uint64(0)
	for _, fd := range d.dirs {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			r.closeDirs() // it ended after it was listed, or another has its number
			return r.tree.openFiles(procs)
		}
		sum += uint64(st.Size)
	}
	return Known(sum)
}

func (r *Reader) openDirs(procs []byte) {
	n := bytes.Count(procs, []byte{'\n'})
	if r.tree.proc == nil || r.held == 0 || n == 0 || n > mostKept || !r.tree.budget.Acquire(n) {
		return
	}
	r.hold(n)
	r.fds.procs = append(r.fds.procs[:0], procs...)
	for pid := range bytes.Lines(procs) {
		fd, err := unix.Open(string(r.tree.proc)+string(line(pid))+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			r.closeDirs()
			return
		}
		r.fds.dirs = append(r.fds.dirs, fd)
	}
}

// closeDirs gives the directories back.
func (r *Reader) closeDirs() {
	if len(r.fds.procs) == 0 {
		return
	}
	for _, fd := range r.fds.dirs {
		_ = unix.Close(fd)
	}
	r.hold(-bytes.Count(r.fds.procs, []byte{'\n'}))
	r.fds.procs, r.fds.dirs = r.fds.procs[:0], r.fds.dirs[:0]
}

// openFiles sums the open files of the processes in the text of cgroup.procs. A process that has ended counts nothing;
// it is unknown where there are more processes than may be asked.
func (t *Tree) openFiles(procs []byte) Value {
	if t.proc == nil || bytes.Count(procs, []byte{'\n'}) > mostProcesses {
		return Value{}
	}
	var (
		room [256]byte
		st   unix.Statx_t
		sum  uint64
	)
	for pid := range bytes.Lines(procs) {
		path := append(append(append(room[:0], t.proc...), line(pid)...), "/fd\x00"...)
		// The package unix takes a string, which would be an allocation for each process and scrape.
		at := unix.AT_FDCWD
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(at), uintptr(unsafe.Pointer(&path[0])), 0,
			unix.STATX_SIZE, uintptr(unsafe.Pointer(&st)), 0)
		runtime.KeepAlive(path)
		if errno == 0 {
			sum += st.Size
		}
	}
	return Known(sum)
}
