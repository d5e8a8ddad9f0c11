package daemons

import (
	"context"
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

// clear ends what the daemon left running and removes what that held: shims and containers, their cgroups, and mounts
// below dirs. address is how its shims know it.
func (p *Process) clear(ctx context.Context, address string, dirs ...string) error {
	if p.mnt == nil { // it never answered, so it has started nothing
		return nil
	}
	var errs []error
	cgroups := map[string]bool{}
	deadline := time.Now().Add(patience)
	for {
		pids := p.left(address)
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			errs = append(errs, fmt.Errorf("end processes of %s: %v do not end", address, pids))
			break
		}
		for _, pid := range pids {
			p.noteCgroups(pid, cgroups)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		time.Sleep(20 * time.Millisecond) // they are not our children: nobody tells us when they have gone
	}
	for dir := range cgroups {
		errs = append(errs, removeCgroup(dir, deadline))
	}
	errs = append(errs, p.removeParents(deadline))
	if !p.own() {
		errs = append(errs, p.unmount(ctx, dirs))
	}
	errs = append(errs, p.mnt.Close()) // with the last process, this ends an own mount namespace and its mounts
	p.mnt = nil
	return errors.Join(errs...)
}

// left gives the living processes that belong to the daemon, which has ended: in an own mount namespace all that run
// there, else the shims that were told its address there; and in both cases all their descendants.
func (p *Process) left(address string) []int {
	var ns syscall.Stat_t
	if err := syscall.Fstat(int(p.mnt.Fd()), &ns); err != nil {
		return nil
	}
	children := map[int][]int{}
	var ours []int
	for _, pid := range pids() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // state, ppid, ...: proc_pid_stat(5)
		if fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		ppid, _ := strconv.Atoi(fields[1]) // the kernel writes a number
		children[ppid] = append(children[ppid], pid)
		var st syscall.Stat_t
		if syscall.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st) != nil || st.Ino != ns.Ino || st.Dev != ns.Dev {
			continue
		}
		if p.own() || shimOf(pid, address) {
			ours = append(ours, pid)
		}
	}
	for i := 0; i < len(ours); i++ {
		for _, c := range children[ours[i]] {
			if !slices.Contains(ours, c) {
				ours = append(ours, c)
			}
		}
	}
	return ours
}

func shimOf(pid int, address string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	argv := strings.Split(string(b), "\x00")
	i := slices.Index(argv, "-address")
	return strings.HasPrefix(filepath.Base(argv[0]), "containerd-shim") && i >= 0 && i+1 < len(argv) && argv[i+1] == address
}

func pids() []int {
	var out []int
	entries, _ := os.ReadDir("/proc") // without /proc no container runs
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// unmount takes off what is still mounted below dirs where the daemon ran, deepest first.
func (p *Process) unmount(ctx context.Context, dirs []string) error {
	table, err := p.Run(ctx, "cat", "/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("find mounts: %w", err)
	}
	var mounted []string
	for line := range strings.Lines(table) {
		path := strings.Fields(line)[1]
		if slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(path, d+"/") }) {
			mounted = append(mounted, path)
		}
	}
	var errs []error
	for _, path := range slices.Backward(mounted) {
		_, err := p.Run(ctx, "umount", path)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cgroupMounts gives where the cgroup file systems are: the unified one and each v1 controller.
func cgroupMounts() []string {
	b, _ := os.ReadFile("/proc/self/mounts")
	var dirs []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			dirs = append(dirs, f[1])
		}
	}
	return dirs
}

// noteCgroups adds the directories of the cgroups that pid is in and neither this process nor the daemon was.
func (p *Process) noteCgroups(pid int, into map[string]bool) {
	mine, _ := os.ReadFile("/proc/self/cgroup")
	theirs, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may have ended
	for line := range strings.Lines(string(theirs)) {
		if strings.Contains(string(mine), line) || strings.Contains(p.in, line) {
			continue
		}
		_, path, _ := strings.Cut(line, ":/")
		for _, m := range cgroupMounts() {
			if dir := filepath.Join(m, strings.TrimSpace(path)); dir != m && isDir(dir) {
				into[dir] = true
			}
		}
	}
}

// removeCgroup removes a cgroup whose processes were just killed; it stays busy for a moment.
func removeCgroup(dir string, deadline time.Time) error {
	for {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// topCgroups lists the cgroups just below the root of every hierarchy.
func topCgroups() []string {
	var out []string
	for _, m := range cgroupMounts() {
		out = append(out, below(m)...)
	}
	return out
}

// below lists the directories in dir.
func below(dir string) []string {
	var out []string
	entries, _ := os.ReadDir(dir) // it may have been removed
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// removeParents removes the daemon's own parent cgroup, and those that runtimes make on their own ("default",
// "libpod_parent", "k8s.io") where they were not there before the daemon and nobody else's containers are in them.
func (p *Process) removeParents(deadline time.Time) error {
	var errs []error
	for _, dir := range topCgroups() {
		all := append(below(dir), dir) // conmon has one of its own
		switch name := filepath.Base(dir); {
		case "/"+name == p.Cgroup:
			for _, c := range all {
				errs = append(errs, removeCgroup(c, deadline))
			}
		case slices.Contains([]string{"default", "libpod_parent", "k8s.io"}, name) && !slices.Contains(p.found, dir):
			for _, c := range all {
				_ = syscall.Rmdir(c)
			}
		}
	}
	return errors.Join(errs...)
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
