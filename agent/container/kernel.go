package container

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// kernel adds what the kernel says of a container's first process: cgroup, network namespace, host links, start time.
// A process is read once; when the runtime speaks of its container again, only its start time is, to know whether the
// number belongs to another process now.
type kernel struct {
	host  host.Root
	facts map[factKey]fact
	links *links

	mu  sync.Mutex
	tab linkTable // guarded by mu: filled by watchLinks
}

type factKey struct {
	runtime Runtime
	handle  Handle
}

type fact struct {
	pid     int
	told    uint64
	start   uint64 // clock ticks after boot
	started time.Time
	cgroup  host.Membership
	netns   host.NetNS
}

func newKernel(root host.Root) *kernel {
	return &kernel{host: root, facts: map[factKey]fact{}, links: newLinks(root), tab: linkTable{}}
}

func (k *kernel) close() { k.links.close() }

// enrich gives the containers with the kernel's side filled in. It reads a few files for each container that is new.
func (k *kernel) enrich(entries []entry) []Container {
	out := make([]Container, 0, len(entries))
	facts := make(map[factKey]fact, len(entries))
	for _, e := range entries {
		c := e.Container
		id := factKey{c.Runtime, c.handle()}
		f := k.refresh(k.facts[id], &e)
		if c.Alive() || c.PID != 0 {
			facts[id] = f
			c.Cgroup, c.NetNS = f.cgroup, f.netns
			if c.Started.IsZero() && c.State != Created {
				c.Started = f.started
			}
		}
		out = append(out, c)
	}
	k.facts = facts
	k.mu.Lock()
	table := k.tab.clone()
	k.mu.Unlock()
	k.links.assign(out, table)
	return out
}

// refresh gives what is known of e's process. When it has ended, what was known stays: its cgroup may still be read.
func (k *kernel) refresh(f fact, e *entry) fact {
	if e.PID == 0 || f.pid == e.PID && f.told == e.told {
		return f
	}
	start, err := k.startTime(e.PID)
	if err != nil {
		return f
	}
	f.told = e.told
	if f.pid == e.PID && f.start == start {
		return f
	}
	cgroup, err := k.host.CgroupOf(e.PID)
	if err != nil {
		return f
	}
	netns, err := k.host.NetNS(e.PID)
	if err != nil {
		return f
	}
	return fact{pid: e.PID, told: e.told, start: start, started: sinceBoot(start), cgroup: cgroup, netns: netns}
}

// startTime is field 22 of /proc/PID/stat, counted after the name in parentheses (proc_pid_stat(5)).
func (k *kernel) startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(k.host.Proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("read start time: %w", err)
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time of %d: %d fields", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// sinceBoot turns clock ticks (100 a second on every architecture that Go knows) into a time.
func sinceBoot(ticks uint64) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(ticks)*10*time.Millisecond - time.Duration(ts.Nano())).Round(0)
}
