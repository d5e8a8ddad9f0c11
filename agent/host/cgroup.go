package host

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Membership is where a process stands in the cgroup hierarchies: one path per cgroup v1 controller, and one in the
// unified (v2) hierarchy. Paths begin with "/" and are relative to the hierarchy's mount (cgroups(7), /proc/PID/cgroup).
type Membership struct {
	V1      map[string]string `json:"v1,omitempty"`      // by controller: "cpu", "cpuacct", "memory", "pids", "name=systemd", ...
	Unified string            `json:"unified,omitempty"` // "" when the process is in no v2 hierarchy
}

// IsZero tells whether nothing is known.
func (m Membership) IsZero() bool { return m.Unified == "" && len(m.V1) == 0 }

// Path is the name of the cgroup as cAdvisor's "id" label has it: the v1 memory or cpu path where those are in use,
// else the unified one.
func (m Membership) Path() string {
	for _, controller := range []string{"memory", "cpu", "cpuacct", "pids"} {
		if p, ok := m.V1[controller]; ok {
			return p
		}
	}
	return m.Unified
}

// CgroupOf gives the membership of a process.
func (r Root) CgroupOf(pid int) (Membership, error) {
	b, err := os.ReadFile(filepath.Join(r.Proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return Membership{}, fmt.Errorf("read cgroup of %d: %w", pid, err)
	}
	return ParseMembership(b), nil
}

// ParseMembership reads the text of /proc/PID/cgroup: one "id:controllers:path" a line. Lines of another form are
// passed over.
func ParseMembership(text []byte) Membership {
	m := Membership{V1: map[string]string{}}
	for line := range bytes.Lines(text) {
		id, rest, ok := strings.Cut(strings.TrimRight(string(line), "\n"), ":")
		controllers, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || !strings.HasPrefix(path, "/") {
			continue
		}
		if id == "0" && controllers == "" {
			m.Unified = path
			continue
		}
		for c := range strings.SplitSeq(controllers, ",") {
			m.V1[c] = path
		}
	}
	return m
}

// Hierarchies says where the cgroup file systems of this host are mounted.
type Hierarchies struct {
	V1      map[string]string // controller → directory
	Unified string            // directory of the v2 mount, "" without one
	// UnifiedControllers are the controllers that the v2 hierarchy really offers; empty on a hybrid host whose
	// controllers are all in v1.
	UnifiedControllers []string
}

// Mode names the layout: "v1", "v2" or "hybrid" (v1 controllers beside a v2 mount).
func (h Hierarchies) Mode() string {
	switch {
	case len(h.V1) == 0:
		return "v2"
	case h.Unified == "":
		return "v1"
	}
	return "hybrid"
}

// Cgroups finds the cgroup mounts below Sys. It reads mountinfo of process 1, so that it also works where the agent's
// own mount namespace shows the host's sysfs elsewhere.
func (r Root) Cgroups() (Hierarchies, error) {
	f, err := os.Open(filepath.Join(r.Proc, "self/mountinfo"))
	if err != nil {
		return Hierarchies{}, fmt.Errorf("find cgroup mounts: %w", err)
	}
	defer f.Close()
	h := Hierarchies{V1: map[string]string{}}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // overlay mounts have long option strings
	for lines.Scan() {
		h.add(lines.Text(), r.Sys)
	}
	if err := lines.Err(); err != nil {
		return Hierarchies{}, fmt.Errorf("find cgroup mounts: %w", err)
	}
	if h.Unified != "" {
		b, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.controllers"))
		if err != nil {
			return Hierarchies{}, fmt.Errorf("read v2 controllers: %w", err)
		}
		h.UnifiedControllers = strings.Fields(string(b))
	}
	if h.Unified == "" && len(h.V1) == 0 {
		return Hierarchies{}, fmt.Errorf("find cgroup mounts: none below %s", r.Sys)
	}
	return h, nil
}

// add takes one line of mountinfo (proc_pid_mountinfo(5)): "... root mountpoint options - fstype source superoptions".
// The first mount of a controller below sys wins; bind mounts of a part of the tree (root other than "/") are others'.
func (h *Hierarchies) add(line, sys string) {
	left, right, ok := strings.Cut(line, " - ")
	l, f := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 5 || len(f) < 3 || !strings.HasPrefix(l[4], sys+"/") || strings.HasPrefix(l[3], "/..") {
		return
	}
	dir := l[4]
	switch f[0] {
	case "cgroup2":
		if h.Unified == "" {
			h.Unified = dir
		}
	case "cgroup":
		for opt := range strings.SplitSeq(f[2], ",") {
			if _, have := h.V1[opt]; !have && opt != "rw" && opt != "ro" {
				h.V1[opt] = dir
			}
		}
	}
}
