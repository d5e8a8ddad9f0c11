// Package logship follows what containers and programs write and delivers every line to every sink.
//
//	inventory ─┐            ┌─ cursor ─ shipper ─> sink "central"
//	globs ─────┼─> stream ──┤
//	inotify ───┘  (tail)    └─ cursor ─ shipper ─> sink "copy"        acknowledged positions ─> ledger
//
// It owns its section of the state directory, its inotify instance, the descriptors of the logs, and hard links in
// .fairlead-pins. Each sink has its own place in each stream, so none waits for another; what a sink does not take
// waits in the files. A place moves only when the sink has acknowledged, in one write with the sink's own mark.
//
// After a crash it goes on at those places: the file sink has each line once; a stream sink may get the batch that was
// on its way once more.
package logship

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// Inventory is what logship needs of the container inventory.
type Inventory interface {
	Snapshot() *container.Snapshot
	// Follow gives the current snapshot and then each newer one, the newest only, until ctx ends.
	Follow(ctx context.Context) iter.Seq[*container.Snapshot]
}

// Deps is what the log shipper stands on.
type Deps struct {
	Inventory   Inventory
	State       *state.Dir // logship's own sub-directory
	Stat        *stat.Registry
	Log         *slog.Logger
	Host        string       // the node's name on every record
	Root        host.Root    // the host as its processes and mounts are seen; zero: as it is here
	Descriptors *host.Holder // nil: no bound but the process's own
}

// Logship is the part. Its methods are safe for concurrent use.
type Logship struct {
	cfg   Config
	deps  Deps
	rules *shape.Set
	tick  time.Duration // tickTime, but in tests

	mu      sync.Mutex
	streams map[string]*stream // of the running Run, for status
	sinks   []*shipper
	book    *ledger.Book // nil while nothing runs
	keep    *tail.Pins
	ending  <-chan struct{} // closed when the running Run is to end

	overflows atomic.Uint64 // times that file events were lost
	abandoned atomic.Uint64 // bytes given up for pins_bytes
}

// New makes the part; it starts nothing and touches nothing. cfg has been validated.
func New(cfg Config, deps Deps) (*Logship, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	rules, err := shape.Compile(cfg.Rules)
	if err != nil {
		return nil, err
	}
	l := &Logship{cfg: cfg, deps: deps, rules: rules, tick: tickTime}
	l.register()
	l.registerShaping()
	return l, nil
}

// Run follows and delivers until ctx ends; then it delivers what was written by then, for at most four seconds, and
// saves its positions. It may be called again after it has returned.
func (l *Logship) Run(ctx context.Context) error {
	book, err := ledger.Open(l.deps.State, l.deps.Log)
	if err != nil {
		return err
	}
	defer func() {
		if err := book.Close(); err != nil {
			l.deps.Log.Error("log positions could not be saved at the end", "err", err)
		}
	}()
	shippers, err := l.prepare(ctx, book)
	if err != nil {
		return err
	}
	watch, err := tail.NewWatcher()
	if err != nil {
		return err
	}
	defer watch.Close()
	f := newFollower(l, book, shippers, watch)
	defer f.close()
	l.running(book, f.pins, ctx.Done())
	defer l.running(nil, nil, nil)
	g := agent.NewGroup(ctx)
	f.pumps, f.visits = newPumps(g, l), newVisits(g, l, f.ring)
	agent.Ready(ctx)
	g.Go(f.run)
	for _, s := range shippers {
		g.Go(s.run)
	}
	return g.Wait()
}

// running lets Owned and the commands have what the running Run works with.
func (l *Logship) running(book *ledger.Book, keep *tail.Pins, ending <-chan struct{}) {
	l.mu.Lock()
	l.book, l.keep, l.ending = book, keep, ending
	l.mu.Unlock()
}

// prepare makes the sinks and tells the book which there are.
func (l *Logship) prepare(ctx context.Context, book *ledger.Book) ([]*shipper, error) {
	var names []string
	var shippers []*shipper
	start := map[string]bool{}
	for _, c := range l.cfg.Sinks {
		s, err := l.open(c)
		if err != nil {
			return nil, err
		}
		names = append(names, c.Name)
		start[c.Name] = c.From == "start"
		sh := newShipper(c.Name, s, book, &deadLetters{path: l.deps.State.File("dead-" + c.Name + ".ndjson")}, l.deps.Log)
		sh.confirm(ctx)
		shippers = append(shippers, sh)
	}
	added, dropped, err := book.SetSinks(names, func(n string) bool { return start[n] })
	if err != nil {
		return nil, err
	}
	if len(added)+len(dropped) > 0 {
		l.deps.Log.Info("sinks changed", "added", added, "removed", dropped)
	}
	l.mu.Lock()
	l.sinks = shippers
	l.mu.Unlock()
	return shippers, nil
}

// pins gives this agent's links.
func (l *Logship) pins(epoch string) *tail.Pins {
	return newPins(l.deps.State.Path(), epoch, l.cfg.Pins, l.deps.Log)
}

// newPins tells an agent's links from those of another on the same machine by its state directory.
func newPins(stateDir, epoch, dir string, log *slog.Logger) *tail.Pins {
	if dir == "off" {
		return nil
	}
	abs, _ := filepath.Abs(stateDir)
	h := fnv.New32a()
	_, _ = h.Write([]byte(abs))
	if dir == "auto" {
		dir = ""
	}
	return tail.NewPins(fmt.Sprintf("%08x", h.Sum32()), epoch, dir, log)
}
