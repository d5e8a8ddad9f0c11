package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// markVariable is in the environment of every process of a run, beside the cgroup: the one survives where the other
// is lost, and either finds the process.
const markVariable = "FAIRLEAD_SIM"

// Sweep clears what earlier runs of kind left that nobody owns any more: their starter is dead. It names each mark that
// it cleared. Runs that are still going are left alone, and those that were kept on purpose unless kept is true.
func Sweep(kind string, kept bool) ([]string, error) {
	var cleared []string
	var errs []error
	for _, mark := range marks(kind) {
		dir := findDir(mark)
		if dir != "" && (owned(dir) || !kept && isKept(dir)) {
			continue
		}
		cleared = append(cleared, mark)
		errs = append(errs, sweep(mark, dir))
	}
	return cleared, errors.Join(errs...)
}

// marks finds the runs of kind by their directories and cgroups.
func marks(kind string) []string {
	var found []string
	for _, pattern := range append([]string{"/tmp", "/var/tmp", "/dev/shm"}, hierarchies()...) {
		paths, _ := filepath.Glob(filepath.Join(pattern, kind+"-*")) // the pattern is well-formed
		for _, p := range paths {
			found = append(found, filepath.Base(p))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func findDir(mark string) string {
	for _, parent := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		if dir := filepath.Join(parent, mark); isDir(dir) {
			return dir
		}
	}
	return ""
}

// claim writes into dir which process it belongs to: number and start time, because numbers come again.
func claim(dir string) error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "owner"), fmt.Appendf(nil, "%d %s\n", os.Getpid(), start), 0o644)
}

// Keep marks the cluster as one that outlives its starter: only a Sweep that is told so ends it.
func (c *Cluster) Keep() error {
	return os.WriteFile(filepath.Join(c.Dir, "kept"), nil, 0o644)
}

func isKept(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "kept"))
	return err == nil
}

func owned(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "owner"))
	if err != nil {
		return false
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	now, err := startTime(n)
	return err == nil && now == start
}

// startTime is field 22 of /proc/PID/stat, counted after the parenthesised name (proc_pid_stat(5)).
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("read start time: %w", err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return fields[19], nil
}

// sweep ends the processes that carry mark, then removes its cgroups and dir. Processes are killed until none is left,
// because one may start another meanwhile.
func sweep(mark, dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	for pids := Processes(mark); len(pids) > 0; pids = Processes(mark) {
		if time.Now().After(deadline) {
			return fmt.Errorf("end processes of %s: %v do not end", mark, pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		time.Sleep(20 * time.Millisecond) // the kernel tells only a parent when a process has gone
	}
	var errs []error
	for _, h := range hierarchies() {
		errs = append(errs, removeCgroups(filepath.Join(h, mark), deadline))
	}
	if dir != "" {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// Processes gives the living processes that carry mark, by cgroup or by environment. Zombies do not count: they hold
// nothing and their parent will take them.
func Processes(mark string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc") // without /proc nothing here works, and New says so
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cgroup, _ := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		environ, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		ours := strings.Contains(string(cgroup), "/"+mark+"/") || strings.Contains("\x00"+string(environ), "\x00"+markVariable+"="+mark+"\x00")
		if ours && !zombie(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

// hierarchies gives the mount points of all cgroup file systems, v1 and v2.
func hierarchies() []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var dirs []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		left, right, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		if strings.HasPrefix(right, "cgroup") && len(fields) > 4 {
			dirs = append(dirs, fields[4])
		}
	}
	return dirs
}

// markingCgroup makes the cgroup name in one hierarchy, which then marks processes, and gives its cgroup.procs file.
// The unified hierarchy is preferred; in v1, where it may be missing, one without side effects is taken.
func markingCgroup(name string) (string, error) {
	for _, candidate := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"} {
		if !slices.Contains(hierarchies(), candidate) {
			continue
		}
		dir := filepath.Join(candidate, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("make cgroup: %w", err)
		}
		return filepath.Join(dir, "cgroup.procs"), nil
	}
	return "", errors.New("make cgroup: no cgroup file system is mounted below /sys/fs/cgroup")
}

// removeCgroups removes dir and the cgroups below it, deepest first. A cgroup stays busy for a moment after its last
// process was killed.
func removeCgroups(dir string, deadline time.Time) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		for {
			err := syscall.Rmdir(d)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// onOverlay tells whether path lies on overlayfs, by its magic number (statfs(2)).
func onOverlay(path string) bool {
	const overlayMagic = 0x794c7630
	var st syscall.Statfs_t
	return syscall.Statfs(path, &st) != nil || st.Type == overlayMagic
}
