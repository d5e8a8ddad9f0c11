package logship

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// mounted is a container's mount table as the kernel has it: also of what the container mounted itself, and of what its
// runtime does not tell (docker's --tmpfs).
type mounted []mountPoint

type mountPoint struct{ dir, kind string }

// mountsOf reads the table of a process; none when it cannot be read.
func mountsOf(proc string, pid int) (all mounted) {
	if pid == 0 {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return nil // it ends just now
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) >= 5 && len(kind) >= 1 {
			all = append(all, mountPoint{unescape.Replace(f[4]), kind[0]})
		}
	}
	return all
}

// unescape undoes what proc_pid_mountinfo(5) does to paths.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// at gives the mount that p lies on: the deepest, and of several at one place the last. It is the zero mountPoint when
// nothing is known.
func (all mounted) at(p string) (best mountPoint) {
	for _, m := range all {
		if below(p, m.dir) && len(m.dir) >= len(best.dir) {
			best = m
		}
	}
	return best
}

// waits tells a file system whose answers come from a process or over a network: looking at a file may take for ever.
func (m mountPoint) waits() bool {
	switch m.kind {
	case "cifs", "smb3", "ceph", "9p", "autofs", "proc", "sysfs":
		return true
	}
	return strings.HasPrefix(m.kind, "fuse") || strings.HasPrefix(m.kind, "nfs") || strings.HasPrefix(m.kind, "cgroup")
}

// fixed is the part of a glob before its first wildcard, as far as it is a path.
func fixed(glob string) string {
	if i := strings.IndexAny(glob, `*?[\`); i >= 0 {
		return path.Dir(glob[:i] + "x")
	}
	return glob
}
