package cgroup

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mostProcesses bounds what counting open files may cost: a microsecond or two for each process.
const mostProcesses = 1000

// CountFiles makes Readers count the open files of a cgroup's processes, which are below the directory proc. Linux tells
// their number as the size of /proc/PID/fd since 6.2; before that each directory is listed, up to mostOpen names for a
// cgroup. It is called before the first Reader is made.
func (t *Tree) CountFiles(proc string) {
	if st, err := os.Stat(filepath.Join(proc, "self/fd")); err == nil {
		t.proc, t.listed = []byte(filepath.Clean(proc)+"/"), st.Size() == 0
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
		n, err := r.tree.filesIn(fd)
		if err != nil {
			r.closeDirs() // it ended after it was listed, or another has its number
			return r.tree.openFiles(procs)
		}
		sum += n
	}
	return r.tree.counted(sum)
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
		sum  uint64
	)
	for pid := range bytes.Lines(procs) {
		path := append(append(append(room[:0], t.proc...), line(pid)...), "/fd\x00"...)
		if !t.listed {
			sum += size(path)
		} else if fd, err := unix.Open(string(path[:len(path)-1]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			n, _ := t.filesIn(fd) // what it gives before the process ends is true
			_ = unix.Close(fd)
			sum += n
		}
		if t.listed && sum > mostOpen {
			break
		}
	}
	return t.counted(sum)
}

// counted is a sum of open files, unknown where they were too many to list.
func (t *Tree) counted(sum uint64) Value {
	return Value{N: sum, Known: !t.listed || sum <= mostOpen}
}

// filesIn tells how many open files the open directory /proc/PID/fd shows; where they are listed, no more than somewhat
// above mostOpen.
func (t *Tree) filesIn(fd int) (uint64, error) {
	if !t.listed {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return uint64(st.Size), err
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return 0, err
	}
	var room [4096]byte
	for sum := uint64(0); ; {
		n, err := unix.Getdents(fd, room[:])
		if n <= 0 || err != nil || sum > mostOpen {
			return sum, err
		}
		sum += entries(room[:n])
	}
}

// entries counts the names in records of getdents64 but "." and "..".
func entries(records []byte) (n uint64) {
	const length, name = 16, 19 // offsets in linux_dirent64
	for len(records) > name {
		if records[name] != '.' {
			n++
		}
		records = records[min(len(records), max(name, int(binary.NativeEndian.Uint16(records[length:])))):]
	}
	return n
}

// size gives the size of the file at path, which ends with a 0, or 0 when there is none. The package unix takes a string,
// which would be an allocation for each process and scrape.
func size(path []byte) uint64 {
	var st unix.Statx_t
	at := unix.AT_FDCWD
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(at), uintptr(unsafe.Pointer(&path[0])), 0,
		unix.STATX_SIZE, uintptr(unsafe.Pointer(&st)), 0)
	runtime.KeepAlive(path)
	if errno != 0 {
		return 0
	}
	return st.Size
}
