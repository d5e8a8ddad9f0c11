// Package metrics answers a scrape: what each container of this host uses and may use, read at that moment from the
// kernel, under the names that cAdvisor made common.
//
//	inventory ─> sync ─> slots (labels rendered, cgroup files open, whose link is which)
//	                       │
//	GET /metrics ─> share ─┴> gather (cgroups, one link dump, machine) ─> page ─> expo ─> text, OpenMetrics, gzip, zstd
//
// Nothing is polled and nothing is remembered between scrapes but open files: an idle agent spends nothing here. The
// part owns its descriptors only; after a crash there is nothing to bring back.
package metrics

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/diskuse"
	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/history"
	"github.com/fairlead-dev/fairlead/metrics/linkstat"
	"github.com/fairlead-dev/fairlead/metrics/machine"
)

// Inventory is what the part asks about containers; *container.Inventory is one. Snapshot answers at once and may give
// nil before anything is known. Follow gives the newest snapshot whenever there is one, until ctx ends.
type Inventory interface {
	Snapshot() *container.Snapshot
	Follow(ctx context.Context) iter.Seq[*container.Snapshot]
}

// Deps is what the part works with. All fields are needed but Now.
type Deps struct {
	Inventory   Inventory
	Root        host.Root
	Stats       *stat.Registry // the agent's own counters; all of them are written on /metrics, whoever registered them
	Descriptors cgroup.Budget  // how many cgroup files may stay open
	Log         *slog.Logger
	State       *state.Dir       // of the history; may be nil when that is off
	Now         func() time.Time // nil is time.Now
}

// Metrics is the part. Its methods are safe for concurrent use.
type Metrics struct {
	cfg     Config
	deps    Deps
	machine *machine.Reader
	history *history.History                                     // nil when it is off
	dial    func(deadline time.Time) (io.ReadWriteCloser, error) // of a route netlink socket
	cost    cost
	share   *share
	disk    *diskuse.Estimator // nil unless the group disk is asked for
	own     *expo.Labels       // none but since when the agent counts
	spare   spare

	mu       sync.Mutex
	tree     *cgroup.Tree // nil until the hierarchies were found
	treeless bool         // they were looked for in vain, and that was said
	view     view
	met      map[key]time.Time // those that live or ended lately, by runtime and id: when each began
	began    time.Time         // the first look at the inventory
	watchers sync.WaitGroup

	// Used by one scrape at a time; share sees to that.
	scratch scratch
}

// New makes the part. It starts nothing and touches nothing on the host.
func New(cfg Config, deps Deps) (*Metrics, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	m := &Metrics{cfg: cfg, deps: deps, machine: machine.NewReader(deps.Root)}
	m.dial = func(deadline time.Time) (io.ReadWriteCloser, error) { return linkstat.Dial(deadline) }
	m.share = newShare(m.scrape)
	if slices.Contains(cfg.Also, "disk") {
		m.disk = diskuse.New(cfg.DiskEvery, deps.Now)
	}
	m.own = expo.NewLabels(nil)
	if cfg.Created {
		m.own.Since(deps.Now())
	}
	m.cost = m.register(deps.Stats)
	e := &m.scratch.encode
	e.devices.sys, e.pages, e.nodes, e.sizes, e.exclude = deps.Root.Sys, pageSizes{}, numaLabels{}, map[flavour]int{}, map[string]bool{}
	e.budget = budget{each: cfg.SeriesPerContainer, all: cfg.Series, dropped: m.cost.dropped}
	for _, group := range cfg.excluded() {
		e.exclude[group] = true
	}
	if cfg.History.On {
		m.history = history.New(cfg.History, history.Deps{
			Samples: m.Samples, State: deps.State, Stats: deps.Stats, Now: deps.Now,
		})
	}
	return m, nil
}

// Run opens the files of each container when it appears and closes them when it is gone, so that no scrape pays for
// that. It blocks until ctx ends and then returns nil. Scrapes are answered whether or not it runs.
func (m *Metrics) Run(ctx context.Context) error {
	defer m.closeAll()
	work := agent.NewGroup(ctx)
	work.Go(m.runDisk)
	work.Go(m.follow)
	return work.Wait()
}

func (m *Metrics) follow(ctx context.Context) error {
	agent.Ready(ctx)
	for snap := range m.deps.Inventory.Follow(ctx) {
		m.sync(snap)
	}
	if ctx.Err() == nil {
		return errors.New("follow the container inventory: it ended")
	}
	return nil
}
