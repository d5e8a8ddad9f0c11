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
