package container

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

// Config says where runtimes are looked for. Nothing needs to be set.
type Config struct {
	// Run is the host's /run as the agent sees it; the runtimes' well-known sockets are looked for below it.
	Run string `yaml:"run" doc:"the host's /run as the agent sees it; the well-known sockets are looked for below it"`
	// Sockets are further sockets of runtimes; which runtime answers there is found by asking.
	Sockets []string `yaml:"sockets" doc:"further sockets; which runtime answers there is found by asking"`
}

// DefaultConfig finds the runtimes of a usual host.
func DefaultConfig() Config { return Config{Run: "/run"} }

// Validate names every problem, each with its key below the section's.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Run) {
		errs = append(errs, fmt.Errorf("run: %q is not an absolute path", c.Run))
	}
	for i, s := range c.Sockets {
		if !filepath.IsAbs(s) {
			errs = append(errs, fmt.Errorf("sockets[%d]: %q is not an absolute path", i, s))
		}
	}
	return errors.Join(errs...)
}

// Deps is what the Inventory needs of others.
type Deps struct {
	Host host.Root
	Log  *slog.Logger
	Stat *stat.Registry
}

// Inventory knows every container on the host. Its methods are safe for concurrent use; Run is called by the
// supervisor and never twice at the same time.
type Inventory struct {
	cfg   Config
	host  host.Root
	log   *slog.Logger
	stat  *stat.Registry
	board Board

	dirty chan struct{} // holds one token when something is to be published
	news  atomic.Pointer[news]

	mu    sync.Mutex
	views map[Runtime]*view
	names map[string]Runtime // by kind and socket: a runtime keeps its name while the agent lives
	gone  []Tombstone        // not yet published
	// relist has a way to ask each runtime in conversation for a complete list; see Refresh.
	relist map[Runtime]func()

	kernel *kernel // belongs to the publishing goroutine
}

// news is one publication and the channel that is closed by the next.
type news struct {
	snapshot *Snapshot
	next     chan struct{}
}

// New makes an Inventory. It touches nothing; Run does.
func New(cfg Config, deps Deps) (*Inventory, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v := &Inventory{
		cfg: cfg, host: deps.Host, log: deps.Log, stat: deps.Stat,
		dirty: make(chan struct{}, 1),
		views: map[Runtime]*view{}, names: map[string]Runtime{}, relist: map[Runtime]func(){},
		kernel: newKernel(deps.Host),
	}
	v.news.Store(&news{snapshot: newSnapshot(time.Time{}, 0, nil), next: make(chan struct{})})
	v.board.onChange(v.markDirty)
	return v, nil
}

// Run finds the runtimes of this host and follows them until ctx ends.
func (v *Inventory) Run(ctx context.Context) error {
	g := agent.NewGroup(ctx)
	agent.Ready(ctx)
	g.Go(v.publish)
	g.Go(v.watchLinks)
	g.Go(func(ctx context.Context) error { return v.discover(ctx, g) })
	return g.Wait()
}

// Snapshot gives what is known now. It takes no lock, never blocks and is never nil; before the first publication it
// is empty with Seq 0. Nobody may modify it.
func (v *Inventory) Snapshot() *Snapshot { return v.news.Load().snapshot }

// Follow gives the newest snapshot, at once and then after each change, until ctx ends or the loop is left. A slow
// consumer misses those in between, never the newest, and holds nobody up.
func (v *Inventory) Follow(ctx context.Context) iter.Seq[*Snapshot] {
	return func(yield func(*Snapshot) bool) {
		for {
			n := v.news.Load()
			if ctx.Err() != nil || !yield(n.snapshot) {
				return
			}
			select {
			case <-n.next:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Board is where the overlay publishes addresses, which the Inventory joins to containers.
func (v *Inventory) Board() *Board { return &v.board }

func (v *Inventory) markDirty() {
	select {
	case v.dirty <- struct{}{}:
	default: // there is a token already
	}
}
