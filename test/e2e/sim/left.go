package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Left gives one line for each thing of the run mark that still exists on the machine: processes, mounts in any mount
// namespace, cgroups, files. None is what one wants.
func Left(mark string) ([]string, error) {
	var left []string
	for _, pid := range Processes(mark) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended meanwhile
		left = append(left, fmt.Sprintf("process %d %s", pid, strings.ReplaceAll(string(cmdline), "\x00", " ")))
	}
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		b, _ := os.ReadFile(table) // as above
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "/"+mark) {
				left = append(left, fmt.Sprintf("mount in %s: %s", filepath.Dir(table), strings.TrimSpace(line)))
			}
		}
	}
	for _, parent := range append(hierarchies(), "/tmp", "/var/tmp", "/dev/shm") {
		err := filepath.WalkDir(filepath.Join(parent, mark), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				left = append(left, "file "+path)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return left, nil
}

// Machine is what a run must not change outside its own hosts.
type Machine struct {
	lines []string // sorted
}

// places is where container software, and we, keep things on a machine: a directory whose entries count, or a path
// that counts by being there.
var places = []string{
	"/etc/cni/*", "/etc/cni/net.d/*", "/etc/fairlead/*", "/opt/cni/*", "/opt/cni/bin/*", "/run/netns/*",
	"/run/containerd", "/run/docker", "/run/runc", "/run/fairlead", "/var/log/containers", "/var/log/fairlead",
	"/var/lib/cni/*", "/var/lib/containerd/*", "/var/lib/fairlead/*",
}

// Look records the machine's own links, nftables, mounts, and what lies in the places where container software keeps
// its things.
func Look() (Machine, error) {
	var m Machine
	for _, argv := range [][]string{{"ip", "-br", "link"}, {"nft", "list", "tables"}} {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			return m, fmt.Errorf("look at the machine: %s: %w", strings.Join(argv, " "), err)
		}
		for line := range strings.Lines(string(out)) {
			if argv[0] == "ip" { // a name; the flags of the machine's own links may change
				line = strings.Fields(line)[0]
			}
			m.lines = append(m.lines, argv[0]+": "+strings.TrimSpace(line))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return m, fmt.Errorf("look at the machine: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		m.lines = append(m.lines, "mount: "+strings.TrimSpace(line))
	}
	for _, place := range places {
		paths, err := filepath.Glob(place)
		if err != nil {
			return m, fmt.Errorf("look at the machine: %w", err)
		}
		for _, path := range append(paths, filepath.Dir(place)) {
			if _, err := os.Stat(path); err == nil {
				m.lines = append(m.lines, "file: "+path)
			}
		}
	}
	slices.Sort(m.lines)
	m.lines = slices.Compact(m.lines)
	return m, nil
}

// Changed tells what is on the machine that was not there before, and which of its own links and tables are gone. Of
// what is mounted, only what a run could have mounted counts: other people work on the machine too.
func (m Machine) Changed(before Machine) []string {
	var diff []string
	for _, l := range m.lines {
		if _, had := slices.BinarySearch(before.lines, l); !had && !foreignMount(l) {
			diff = append(diff, "+ "+l)
		}
	}
	for _, l := range before.lines {
		_, has := slices.BinarySearch(m.lines, l)
		if !has && (strings.HasPrefix(l, "ip: ") || strings.HasPrefix(l, "nft: ")) {
			diff = append(diff, "- "+l)
		}
	}
	return diff
}

// foreignMount tells whether a line is a mount outside the places where container software and runs of ours mount.
func foreignMount(line string) bool {
	mount, ok := strings.CutPrefix(line, "mount: ")
	if !ok {
		return false
	}
	at := strings.Fields(mount)[1]
	for _, ours := range []string{"/tmp/fairlead-", "/var/tmp/fairlead-", "/dev/shm/fairlead-", "/run", "/etc", "/opt", "/var/lib", "/sys", "/proc"} {
		if strings.HasPrefix(at, ours) {
			return false
		}
	}
	return true
}
