package logship

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// pumper copies what follows the spool's last line from a source that is no file. It ends with ctx, when the source has
// no more for now (nil), or with an error after which it is tried again.
type pumper interface {
	pump(ctx context.Context, sp *spool) error
}

// pumps are all sources that are no files.
type pumps struct {
	l     *Logship
	group *agent.Group

	mu    sync.Mutex
	of    map[string]*pump // by stream
	ended []string         // streams whose source has given all it had
}

// pump is one source at work.
type pump struct {
	key   string
	src   pumper
	last  pumper // asked once more when the container is gone; nil: src ends by itself then
	alive atomic.Bool
	bell  chan struct{}
	gone  chan struct{} // closed when the container is
	left  bool          // gone is closed; guarded by pumps.mu
}

// goneTime is what a runtime has to end the answer that it gives for a container that was removed.
const goneTime = 3 * time.Second

func newPumps(group *agent.Group, l *Logship) *pumps {
	return &pumps{l: l, group: group, of: map[string]*pump{}}
}

// spoolFile is where a stream's spool lies.
func (l *Logship) spoolFile(key string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return filepath.Join(l.deps.State.Path(), "spool", fmt.Sprintf("%016x", h.Sum64()), "log")
}

// journalStream gives the stream of a selection of the journal.
func (l *Logship) journalStream(j Journal) (key string, src ledger.Source) {
	key = "journal:" + j.name()
	return key, ledger.Source{Root: tail.Host, Path: l.spoolFile(key), Format: container.DockerJSON, Origin: &sink.Origin{Host: l.deps.Host, Name: j.name()}}
}

// journals begins to copy what the configuration selects of the journal.
func (p *pumps) journals(add func(key string, src ledger.Source)) {
	for _, j := range p.l.cfg.Journal {
		key, src := p.l.journalStream(j)
		p.begin(key, j.source(p.l.cfg.JournalDirectory), nil)
		add(key, src)
	}
}

// configured tells whether a spool is that of a journal that is still selected.
func (l *Logship) configuredSpool(path string) bool {
	return slices.ContainsFunc(l.cfg.Journal, func(j Journal) bool {
		_, src := l.journalStream(j)
		return src.Path == path
	})
}

// unread tells how a container's output is read when its runtime writes no file of lines.
func unread(c *container.Container, runtimes []container.RuntimeState, journals string) (src, last pumper, ok bool) {
	if c.Sandbox || c.Log.Format != "" && c.Log.Path != "" {
		return nil, nil, false
	}
	kind, _, _ := strings.Cut(string(c.Runtime), "@")
	switch {
	case c.Log.Driver == "" || c.Log.Driver == "none" || c.Log.Driver == "passthrough":
		return nil, nil, false
	case kind == "podman" && c.Log.Driver == "journald":
		drain := ofContainer(string(c.ID), journals)
		drain.follow = false
		return ofContainer(string(c.ID), journals), drain, true
	case kind == "docker":
		i := slices.IndexFunc(runtimes, func(r container.RuntimeState) bool { return r.Name == c.Runtime })
		if i < 0 || runtimes[i].Socket == "" {
			return nil, nil, false
		}
		return &engine{socket: runtimes[i].Socket, id: string(c.ID)}, nil, true
	}
	return nil, nil, false
}

// apply begins and ends sources as containers come and go, and gives add the stream of each.
func (p *pumps) apply(snap *container.Snapshot, closed func(key string) bool, add func(key string, src ledger.Source, o owner)) {
	present := map[string]bool{}
	for i := range snap.Containers {
		c := &snap.Containers[i]
		src, last, ok := unread(c, snap.Runtimes, p.l.cfg.JournalDirectory)
		if !ok {
			continue
		}
		key := string(c.Runtime) + "/" + string(c.ID)
		present[key] = true
		if closed(key) {
			continue
		}
		pump := p.begin(key, src, last)
		if pump.alive.Store(c.Alive()); c.Alive() {
			ring(pump.bell)
		}
		add(key, ledger.Source{Root: tail.Host, Path: p.l.spoolFile(key), Format: container.CRI, Origin: origin(p.l.deps.Host, c)}, owner{c.Runtime, c.ID})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, pump := range p.of {
		name, _, isContainer := strings.Cut(key, "/")
		if isContainer && !strings.HasPrefix(key, "journal:") && !present[key] && snap.Answered(container.Runtime(name)) && !pump.left {
			pump.left = true
			close(pump.gone)
		}
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// begin starts the source of a stream unless it is at work.
func (p *pumps) begin(key string, src, last pumper) *pump {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.of[key]; have != nil {
		return have
	}
	n := &pump{key: key, src: src, last: last, bell: make(chan struct{}, 1), gone: make(chan struct{})}
	p.of[key] = n
	// The directory is watched from now on. If it cannot be made, run says so.
	_ = os.MkdirAll(filepath.Dir(p.l.spoolFile(key)), 0o700)
	p.group.Go(func(ctx context.Context) error { return p.run(ctx, n) })
	return n
}

// busy tells whether a stream's source may still give something.
func (p *pumps) busy(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[key] != nil
}

// takeEnded gives the streams whose sources have ended since the last call.
func (p *pumps) takeEnded() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.ended
	p.ended = nil
	return out
}

// none tells whether no source is at work.
func (p *pumps) none() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of) == 0
}

// remove clears what is left of a stream that every sink has in full, or that nobody wants any more.
func (p *pumps) remove(path string) {
	dir := filepath.Dir(path)
	if filepath.Dir(dir) != filepath.Join(p.l.deps.State.Path(), "spool") {
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		p.l.deps.Log.Warn("spool could not be removed", "path", dir, "err", err)
	}
}

// lag is how far the slowest sink of a stream is behind.
func (l *Logship) lag(key string) int64 {
	l.mu.Lock()
	s := l.streams[key]
	l.mu.Unlock()
	if s == nil {
		return 0
	}
	n := int64(0)
	for c := range s.readers() {
		n = max(n, c.lag())
	}
	return n
}

// run works until the container is gone and all of its output is in the spool, or ctx ends.
func (p *pumps) run(ctx context.Context, n *pump) error {
	sp, ok := p.open(ctx, n)
	if !ok {
		return nil
	}
	p.work(ctx, n, sp)
	if err := sp.close(); err != nil {
		p.l.deps.Log.Warn("spool could not be closed", "stream", n.key, "err", err)
	}
	if ctx.Err() == nil {
		p.mu.Lock()
		delete(p.of, n.key)
		p.ended = append(p.ended, n.key)
		p.mu.Unlock()
	}
	return nil
}

// open repeats until the spool is open; ok is false when ctx ended first.
func (p *pumps) open(ctx context.Context, n *pump) (sp *spool, ok bool) {
	for try := 0; ; try++ {
		sp, err := openSpool(p.l.spoolFile(n.key), func() int64 { return p.l.lag(n.key) })
		if err == nil {
			return sp, true
		}
		p.l.deps.Log.Warn("spool could not be opened; it is tried again", "stream", n.key, "err", err)
		if !sleep(ctx, backoff(try)) {
			return nil, false
		}
	}
}

func (p *pumps) work(ctx context.Context, n *pump, sp *spool) {
	failing := false
	for try := 0; ; try++ {
		began := time.Now()
		err := n.once(ctx, sp)
		if ctx.Err() != nil || errors.Is(err, errNoContainer) {
			return
		}
		if time.Since(began) > 10*time.Second {
			try = 0
		}
		if err != nil && !failing {
			p.l.deps.Log.Warn("source of a log cannot be read; it is tried again", "stream", n.key, "err", err)
		}
		failing = err != nil
		again := (<-chan time.Time)(nil)
		if err != nil || n.alive.Load() {
			again = time.After(backoff(try + 3))
		}
		select {
		case <-ctx.Done():
			return
		case <-n.gone:
			if n.last != nil {
				if err := n.last.pump(ctx, sp); err != nil && ctx.Err() == nil {
					p.l.deps.Log.Warn("end of a removed container's log could not be read", "stream", n.key, "err", err)
				}
			}
			return
		case <-n.bell:
		case <-again:
		}
	}
}

// once pumps until the source ends. One that would go on without its container is told to stop.
func (n *pump) once(ctx context.Context, sp *spool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-done:
			return
		case <-n.gone:
		}
		if n.last == nil {
			sleep(ctx, goneTime)
		}
		cancel()
	}()
	err := n.src.pump(ctx, sp)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
