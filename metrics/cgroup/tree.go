package cgroup

import (
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// Budget grants descriptors; *host.Holder is one.
type Budget interface {
	Acquire(n int) bool
	Release(n int)
}

// Tree is the cgroup hierarchies of this host and what its Readers share. It is safe for concurrent use.
type Tree struct {
	mounts host.Hierarchies
	budget Budget
	opened atomic.Uint64
	kept   atomic.Int64
	proc   []byte // nil: open files are not counted
	listed bool   // they have to be listed for that
	socks  string // empty: open sockets are not counted
	skip   map[string]bool

	watches *watches // nil: limits are read each time
}

// NewTree makes a Tree of the hierarchies that are mounted at h. It opens nothing.
func NewTree(h host.Hierarchies, b Budget) *Tree { return &Tree{mounts: h, budget: b} }

// Opened tells how often a file had to be opened for one single read because the budget refused to keep it.
func (t *Tree) Opened() uint64 { return t.opened.Load() }

// Kept tells how many descriptors the Tree's Readers hold.
func (t *Tree) Kept() int { return int(t.kept.Load()) }

// Skip makes Readers leave out the files of these groups: io, cpuset, hugetlb, numa, pressure. The others' files tell of several
// groups. It is called before the first Reader is made.
func (t *Tree) Skip(groups ...string) {
	t.skip = map[string]bool{}
	for _, g := range groups {
		t.skip[g] = true
	}
}

// Reader makes the Reader of the cgroup m. It opens nothing before the first Read; whoever has it must Close it.
func (t *Tree) Reader(m host.Membership) *Reader {
	files := t.files(m, below)
	return &Reader{tree: t, files: append(make([]file, 0, len(files)), files...)} // no room to grow: there are thousands of them
}

// Root makes the Reader of the root cgroup: the whole machine, as far as the kernel has the same files there. Whoever has
// it must Close it. Open files are not counted there.
func (t *Tree) Root() *Reader {
	m := host.Membership{Unified: "/", V1: map[string]string{}}
	for controller := range t.mounts.V1 {
		m.V1[controller] = "/"
	}
	files := t.files(m, func(mount, _ string) (string, bool) { return mount, mount != "" })
	for i := range files {
		files[i].pids = false // the shims of every container are there: to ask each process costs more than all else
	}
	return &Reader{tree: t, files: files}
}

// format is one kernel file by name and the parser of its text.
type format struct {
	name  string
	parse func(text []byte, s *Stats) error
	long  bool // one record a line: a read may end before the file does
	limit bool // it changes only when somebody writes to its cgroup; see Tree.Watch
	// follows tells that it changes only when the file before it in the list does, and not after that.
	follows bool
	pids    bool // its lines are processes
}

// files decides which files tell about m: each controller where it is mounted, v1 before v2, because a controller that
// a v1 hierarchy holds shows nothing in v2.
func (t *Tree) files(m host.Membership, below func(mount, path string) (string, bool)) []file {
	h := t.mounts
	var out []file
	unified, onUnified := below(h.Unified, m.Unified)
	add := func(dir string, formats ...format) {
		for i := range formats {
			out = append(out, file{format: &formats[i], dir: dir, fd: closed, v2: dir == unified, pids: formats[i].pids})
		}
	}
	v1 := func(controller string) (string, bool) { return below(h.V1[controller], m.V1[controller]) }
	v2 := func(controller string) bool { return onUnified && slices.Contains(h.UnifiedControllers, controller) }

	cpu, cpuV1 := v1("cpu")
	acct, acctV1 := v1("cpuacct")
	memory, memoryV1 := v1("memory")
	tasks, pidsV1 := v1("pids")

	if acctV1 {
		add(acct, v1CPUAcct...)
	}
	switch {
	case cpuV1:
		add(cpu, v1CPU...)
	case v2("cpu"):
		add(unified, v2CPU...)
	case !acctV1 && onUnified:
		add(unified, v2CPU[:1]...)
	}
	switch {
	case memoryV1:
		add(memory, v1Memory...)
		if !t.skip["numa"] {
			add(memory, v1NUMA...)
		}
	case v2("memory"):
		add(unified, v2Memory...)
		if !t.skip["numa"] {
			add(unified, v2NUMA...)
		}
	}
	switch {
	case pidsV1:
		add(tasks, pids...)
	case v2("pids"):
		add(unified, pids...)
	}
	blkio, ioV1 := v1("blkio")
	set, setV1 := v1("cpuset")
	huge, hugeV1 := v1("hugetlb")
	switch {
	case t.skip["io"]:
	case ioV1:
		add(blkio, v1IO...)
	case v2("io"):
		add(unified, v2IO...)
	}
	switch {
	case t.skip["cpuset"]:
	case setV1:
		add(set, v1CPUSet...)
	case v2("cpuset"):
		add(unified, v2CPUSet...)
	}
	switch {
	case t.skip["hugetlb"]:
	case hugeV1:
		add(huge, hugeFiles(huge, false)...)
	case v2("hugetlb"):
		add(unified, hugeFiles(unified, true)...)
	}
	if onUnified && !t.skip["pressure"] {
		add(unified, pressure...)
	}
	switch {
	case pidsV1:
		add(tasks, procs...)
	case cpuV1:
		add(cpu, procs...)
	case onUnified:
		add(unified, procs...)
	}
	return out
}

// below gives the directory of the cgroup at path in the hierarchy mounted at mount. The root is the machine's, not a
// container's, and a path that climbs out of our cgroup namespace cannot be read.
func below(mount, path string) (string, bool) {
	if mount == "" || path == "" || path == "/" || strings.HasPrefix(path, "/..") {
		return "", false
	}
	return filepath.Join(mount, path), true
}

// Own cuts from m what the container made inside its own cgroup, so that a container that runs systemd (init.scope) or
// that Podman started (container/) is measured whole. The container's own directory is named by its id:
// "ID" with cgroupfs, "something-ID.scope" with systemd. Where there is nothing to cut, as with most, m itself is given.
func Own(m host.Membership, id string) host.Membership {
	whole := cut(m.Unified, id) == m.Unified
	for _, path := range m.V1 {
		whole = whole && cut(path, id) == path
	}
	if id == "" || whole {
		return m
	}
	out := host.Membership{Unified: cut(m.Unified, id), V1: make(map[string]string, len(m.V1))}
	for controller, path := range m.V1 {
		out.V1[controller] = cut(path, id)
	}
	return out
}

func cut(path, id string) string {
	end := 0
	for part := range strings.SplitSeq(path, "/") {
		end += len(part)
		if part == id || strings.HasSuffix(part, ".scope") && strings.HasSuffix(part, "-"+id+".scope") {
			return path[:end]
		}
		end++
	}
	return path
}
