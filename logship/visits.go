package logship

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// visits read the files that only a container's own mount namespace shows: on a tmpfs, on a mount made inside, in a root
// without an upper directory. A followed file is held open, and that would keep the container from unmounting; so these
// are opened for each look, and what is new is copied to a spool, from which it goes on like the journal.
type visits struct {
	l     *Logship
	group *agent.Group
	ring  func() // wakes the follower; it does not block

	mu    sync.Mutex
	of    map[owner]*visit
	found map[string]visitedLog
	ended []string
	left  bool // a visit has ended since the last call of take
	lost  map[string]int64
}

// visitedLog is a stream that a visit has found.
type visitedLog struct {
	src   ledger.Source
	owner owner
}

// room is a container to be visited.
type room struct {
	pid   int
	globs []*glob
	known []string           // paths that were followed before; they may be away for a moment
	upper bool               // what lies on the root itself is followed in its upper directory
	same  func(pid int) bool // is it the container's process?
}

func newVisits(group *agent.Group, l *Logship, ring func()) *visits {
	return &visits{l: l, group: group, ring: ring, of: map[owner]*visit{}, found: map[string]visitedLog{}, lost: map[string]int64{}}
}

// roomOf describes a container with globs to be visited.
func (f *follower) roomOf(c *container.Container, globs []*glob) room {
	var known []string
	for _, s := range f.streams {
		if s.spooled && s.owner == globs[0].owner && s.src.Origin.Path != "" {
			known = append(known, s.src.Origin.Path)
		}
	}
	return room{pid: c.PID, globs: globs, known: known, upper: c.Rootfs.Upper != "", same: func(pid int) bool {
		m, err := f.l.root().CgroupOf(pid)
		return err == nil && (c.Cgroup.IsZero() || reflect.DeepEqual(m, c.Cgroup))
	}}
}

func (l *Logship) root() host.Root {
	if l.deps.Root.Proc == "" {
		return host.DefaultRoot()
	}
	return l.deps.Root
}

// begin visits a container whose process lives, or tells the visit that is at work what is asked for now.
func (v *visits) begin(o owner, r room) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if have := v.of[o]; have != nil { // perhaps of a process that ends just now; the next call begins anew
		have.asked.Store(&r)
		return nil
	}
	ns, err := tail.OpenNamespace(v.l.root().Proc, r.pid, func() bool { return r.same(r.pid) })
	if err != nil {
		if errors.Is(err, os.ErrProcessDone) || errors.Is(err, fs.ErrNotExist) {
			v.l.deps.Log.Debug("a container could not be visited; it ends, or has just begun", "container", o.ID, "err", err)
			return nil // the inventory will say so
		}
		return err
	}
	n := &visit{all: v, owner: o, ns: ns, files: map[string]*visitedFile{}, gone: map[string]bool{}, doubt: map[string]time.Time{}}
	n.asked.Store(&r)
	v.of[o] = n
	v.group.Go(n.run)
	return nil
}

// busy tells whether a container's files are still read.
func (v *visits) busy(o owner) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.of[o] != nil
}

// none tells whether nobody is visited.
func (v *visits) none() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.of) == 0
}

// visitNews is what the follower has to know.
type visitNews struct {
	found map[string]visitedLog
	ended []string         // files that have been away for long
	lost  map[string]int64 // bytes, by stream
	left  bool             // a visit has ended
}

// take gives what happened since the last call.
func (v *visits) take() visitNews {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := visitNews{v.found, v.ended, v.lost, v.left}
	v.found, v.ended, v.lost, v.left = map[string]visitedLog{}, nil, map[string]int64{}, false
	return n
}

// tell notes news for the follower.
func (v *visits) tell(note func()) {
	v.mu.Lock()
	note()
	v.mu.Unlock()
	v.ring()
}

// followed tells whether the follower has a stream: what is written to its spool is then kept for the sinks.
func (v *visits) followed(key string) bool {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	return v.l.streams[key] != nil
}

// visit looks after the files of one container.
func (f *follower) visit(o owner, r room) {
	err := f.visits.begin(o, r)
	if err != nil && !f.said[o] {
		f.said[o] = true
		f.log.Warn("files of a container cannot be reached from the host", "container", o.ID, "err", err)
	}
}

// visited takes in what visits have found, lost and ended.
func (f *follower) visited() {
	news := f.visits.take()
	for key, l := range news.found {
		f.add(key, l.src, l.owner)
	}
	for key, n := range news.lost {
		if s := f.streams[key]; s != nil {
			f.log.Warn("lines of a file inside a container were destroyed before they were read", "stream", key, "path", s.src.Origin.Path, "bytes", n)
			for c := range s.readers() {
				c.lose(n)
			}
		}
	}
	for _, key := range news.ended {
		f.end(key)
	}
	if news.left && f.snap != nil {
		f.endGone(f.snap)
		f.scan() // the container may have been started again meanwhile
	}
	if len(news.found)+len(news.ended) > 0 {
		f.rewatch()
	}
}
