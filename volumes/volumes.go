// Package volumes takes, keeps and restores consistent copies of volumes.
//
//	inventory, configuration ── Discover ─> Volume ── snapshot.Room.Take ─> snapshot ── backup.Repository ─> backup
//	                                                                                  another host, too <─ restore
//
// It owns the rooms in which snapshots lie, on the volumes' own file systems, and the repositories that the
// configuration names; of a repository it keeps the key, as a promise, under its state directory. What backups there
// are, only the repository says.
//
// After kill -9 nothing has to be unlocked: Run removes unfinished snapshots and those that a backup had taken for
// itself, an unfinished backup was never in the catalogue, and an unfinished restore is begun anew by asking again.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// Deps are what the part stands on.
type Deps struct {
	Log       *slog.Logger
	Stats     *stat.Registry
	State     *state.Dir // the part's own
	Inventory interface {
		Snapshot() *container.Snapshot
	}
	Node string // this host's identity
}

// Volumes is the part. Its methods are safe for concurrent use.
type Volumes struct {
	cfg  Config
	deps Deps

	keys    sync.Mutex // repositories are opened and made one at a time
	mu      sync.Mutex
	running context.Context // of Run; nil while it does not
	work    *sync.WaitGroup // operations of that Run
	busy    map[string]Volume
	rooms   []string // every room that was ever used; a promise
	last    map[string]LastBackup
	metrics metrics
}

type metrics struct {
	snapshots, backups, restores, failures *stat.Counter
	stored                                 *stat.Counter
}

// New makes the part. It starts nothing and touches nothing.
func New(cfg Config, deps Deps) (*Volumes, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v := &Volumes{cfg: cfg, deps: deps, busy: map[string]Volume{}, last: map[string]LastBackup{}}
	v.metrics = metrics{
		snapshots: deps.Stats.Counter("fairlead_volumes_snapshots_taken_total", "Snapshots taken since the agent started, those for backups included."),
		backups:   deps.Stats.Counter("fairlead_volumes_backups_made_total", "Backups that reached their repository since the agent started."),
		restores:  deps.Stats.Counter("fairlead_volumes_restores_made_total", "Restores that were completed, every file's hash compared, since the agent started."),
		failures:  deps.Stats.Counter("fairlead_volumes_operations_failed_total", "Snapshots, backups, restores and verifications that failed since the agent started."),
		stored:    deps.Stats.Counter("fairlead_volumes_stored_bytes_total", "Bytes that backups added to repositories since the agent started, after deduplication and compression."),
	}
	return v, nil
}

// Run clears what a killed agent left and then lets operations begin, until ctx ends; it ends those that are at work.
// It may be called again after it has returned.
func (v *Volumes) Run(ctx context.Context) error {
	if err := v.open(); err != nil {
		return err
	}
	v.sweep(ctx)
	work := &sync.WaitGroup{}
	v.mu.Lock()
	v.running, v.work = ctx, work
	v.mu.Unlock()
	agent.Ready(ctx)
	<-ctx.Done()
	v.mu.Lock()
	v.running = nil
	v.mu.Unlock()
	work.Wait()
	return nil
}

// What operations refuse.
var (
	ErrNotReady  = errors.New("volumes are not ready")
	ErrBusy      = errors.New("another operation works on the volume")
	ErrUnknown   = errors.New("unknown")
	ErrAmbiguous = errors.New("ambiguous")
)

var errStopping = errors.New("the agent stops")

// begin starts an operation: its context ends with ctx and with Run. done must be called.
func (v *Volumes) begin(ctx context.Context) (_ context.Context, done func(error), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running == nil || v.running.Err() != nil {
		return nil, nil, ErrNotReady
	}
	work := v.work
	work.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(v.running, func() { cancel(errStopping) })
	return ctx, func(err error) {
		if err != nil {
			v.metrics.failures.Inc()
		}
		stop()
		cancel(nil)
		work.Done()
	}, nil
}

// lock keeps a second operation from the same volume.
func (v *Volumes) lock(vol Volume) (unlock func(), err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, taken := v.busy[vol.Name]; taken {
		return nil, fmt.Errorf("volume %s: %w", vol.Name, ErrBusy)
	}
	v.busy[vol.Name] = vol
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.busy, vol.Name)
	}, nil
}

// Busy gives the containers whose volumes are being copied right now: what they left must not be cleared yet.
func (v *Volumes) Busy() map[container.ID]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[container.ID]bool{}
	for _, vol := range v.busy {
		for _, u := range vol.Users {
			out[u.ID] = true
		}
	}
	return out
}

// Volumes gives the volumes of this host by name.
func (v *Volumes) Volumes() []Volume { return Discover(v.deps.Inventory.Snapshot(), v.cfg) }

// find gives the volume that a person means: by its name, or by what follows the runtime in it when only one has that.
func (v *Volumes) find(name string) (Volume, error) {
	var short []Volume
	for _, vol := range v.Volumes() {
		if vol.Name == name {
			return vol, nil
		}
		if vol.Kind == Named && afterRuntime(vol.Name) == name {
			short = append(short, vol)
		}
	}
	switch len(short) {
	case 1:
		return short[0], nil
	case 0:
		return Volume{}, fmt.Errorf("volume %q is %w on this host; `fairlead volume ls` lists them", name, ErrUnknown)
	}
	return Volume{}, fmt.Errorf("volume %q is %w: %s or %s", name, ErrAmbiguous, short[0].Name, short[1].Name)
}

// sweep clears what a killed agent left, as far as it can be reached.
func (v *Volumes) sweep(ctx context.Context) {
	for _, room := range v.knownRooms() {
		swept, err := snapshot.NewRoom(room).Sweep(ctx)
		if len(swept) > 0 {
			v.deps.Log.Warn("snapshots that a killed agent left unfinished were removed", "path", room, "snapshots", swept)
		}
		if err != nil {
			v.deps.Log.Error("unfinished snapshots could not be removed", "path", room, "err", err)
		}
	}
	for _, r := range v.cfg.Repositories {
		v.sweepRepository(r)
	}
}
