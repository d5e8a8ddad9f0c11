package host

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// Cgroups finds the cgroup mounts below Sys in the agent's own mount table, because only what is mounted there can be
// opened. In a pod with the host's /sys on /host/sys that is /host/sys/fs/cgroup, while the pod's own /sys/fs/cgroup
// is passed over. Where the table knows nothing below Sys, its mounts below /sys are looked for at the same place
// below Sys: so a recorded host is read, with its own table under Proc.
func (r Root) Cgroups() (Hierarchies, error) {
	table, err := os.ReadFile(filepath.Join(r.Proc, "self/mountinfo"))
	if err != nil {
		return Hierarchies{}, fmt.Errorf("find cgroup mounts: %w", err)
	}
	h, parts := parseMounts(table, r.Sys, r.Sys)
	if h.empty() {
		if h, _ = parseMounts(table, "/sys", r.Sys); !h.exists() {
			h = Hierarchies{}
		}
	}
	switch {
	case h.empty() && len(parts) > 0:
		return Hierarchies{}, fmt.Errorf("find cgroup mounts: below %s only a part of the tree is mounted (%s): run the agent in the host's cgroup namespace with all of the host's /sys", r.Sys, strings.Join(parts, ", "))
	case h.empty():
		return Hierarchies{}, fmt.Errorf("find cgroup mounts: none below %s", r.Sys)
	case h.Unified == "":
		return h, nil
	}
	b, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.controllers"))
	if err != nil {
		return Hierarchies{}, fmt.Errorf("read v2 controllers: %w", err)
	}
	h.UnifiedControllers = strings.Fields(string(b))
	return h, nil
}

func (h Hierarchies) empty() bool { return h.Unified == "" && len(h.V1) == 0 }

// exists tells whether every directory is there.
func (h Hierarchies) exists() bool {
	for _, dir := range append(slices.Collect(maps.Values(h.V1)), h.Unified) {
		if _, err := os.Stat(dir); dir != "" && err != nil {
			return false
		}
	}
	return true
}

// parseMounts reads a mount table (proc_pid_mountinfo(5)) and gives the cgroup mounts below the directory from, as if
// they were below to. parts names those that show only a part of their tree.
func parseMounts(table []byte, from, to string) (h Hierarchies, parts []string) {
	h.V1 = map[string]string{}
	from, to = filepath.Clean(from), filepath.Clean(to)
	for line := range strings.Lines(string(table)) {
		m, ok := parseMount(line)
		rest, below := strings.CutPrefix(m.point, from)
		if !ok || !below || !strings.HasPrefix(rest, "/") {
			continue
		}
		// Another root is a bind mount of a part, as a container's own cgroup; one above ours ("/..", see
		// cgroup_namespaces(7)) is whole, but then /proc/PID/cgroup gives paths that do not fit it.
		if m.root != "/" {
			parts = append(parts, m.root+" on "+m.point)
			continue
		}
		h.add(m, to+rest)
	}
	return h, parts
}

// add notes one mount; the first of a controller wins.
func (h *Hierarchies) add(m cgroupMount, dir string) {
	if m.v2 {
		if h.Unified == "" {
			h.Unified = dir
		}
		return
	}
	for option := range strings.SplitSeq(m.options, ",") {
		if _, have := h.V1[option]; !have && isController(option) {
			h.V1[option] = dir
		}
	}
}

// cgroupMount is one line of a mount table.
type cgroupMount struct {
	root, point, options string
	v2                   bool
}

// parseMount takes "id parent dev root point options ... - type source superoptions" apart; false for other types.
func parseMount(line string) (cgroupMount, bool) {
	left, right, _ := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if len(l) < 6 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
		return cgroupMount{}, false
	}
	return cgroupMount{root: unescape.Replace(l[3]), point: unescape.Replace(l[4]), options: r[2], v2: r[0] == "cgroup2"}, true
}

// unescape undoes what the kernel does to characters that would break the table.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// isController tells a controller, or the name of a hierarchy without one, from the other options of a v1 mount.
func isController(option string) bool {
	switch option {
	case "rw", "ro", "none", "all", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods":
		return false
	}
	return strings.HasPrefix(option, "name=") || !strings.Contains(option, "=") // release_agent=/...
}
