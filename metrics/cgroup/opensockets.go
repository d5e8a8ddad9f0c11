package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// mostOpen bounds how many open files of one cgroup are looked at for that.
const mostOpen = 10_000

// CountSockets makes Readers count the open sockets of a cgroup's processes, which are below the directory proc, of any
// family. It costs a readlink for each open file at each Read. It is called before the first Reader is made.
func (t *Tree) CountSockets(proc string) { t.socks = filepath.Clean(proc) }

// openSockets sums those of the processes in the text of cgroup.procs. A process that has ended counts nothing; it is
// unknown where there is more than may be looked at.
func (t *Tree) openSockets(procs []byte) Value {
	if t.socks == "" || bytes.Count(procs, []byte{'\n'}) > mostProcesses {
		return Value{}
	}
	sum, looked := uint64(0), 0
	for pid := range bytes.Lines(procs) {
		dir := filepath.Join(t.socks, string(line(pid)), "fd")
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(mostOpen - looked + 1) // what it gives before it ends is true
		_ = f.Close()
		if looked += len(names); looked > mostOpen {
			return Value{}
		}
		for _, fd := range names {
			if to, err := os.Readlink(filepath.Join(dir, fd)); err == nil && strings.HasPrefix(to, "socket:") {
				sum++
			}
		}
	}
	return Known(sum)
}
