package reap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
)

// Deps are what the Reaper stands on.
type Deps struct {
	Log       *slog.Logger
	Stats     *stat.Registry
	State     *state.Dir // the reaper's own
	Root      host.Root
	Inventory interface {
		Refresh(context.Context) *container.Snapshot
	}
	Owners map[string]Owner // parts and detectors, by name
	// Busy gives the containers, gone or not, with whose remains a part is not done yet. It may be nil.
	Busy func() map[container.ID]bool
}

// Reaper observes and, when it is told to, cleans. Its methods are safe for concurrent use; one works at a time.
type Reaper struct {
	cfg  Config
	deps Deps
	step func(string) // called before each change; tests crash in it

	mu         sync.Mutex
	opened     bool
	boot       string
	record     Record
	audit      *audit
	quarantine quarantine
	begun      []Resource // by an agent that was killed in the middle

	orphans map[Decision]*stat.Gauge
	swept   *stat.Counter
	failed  *stat.Counter
	known   map[string]bool // orphans that were logged
}

// New makes a Reaper. It touches nothing.
func New(cfg Config, deps Deps) (*Reaper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Reaper{cfg: cfg, deps: deps, step: func(string) {}, orphans: map[Decision]*stat.Gauge{}, known: map[string]bool{}}
	for _, d := range []Decision{Report, Sweep} {
		r.orphans[d] = deps.Stats.Gauge("fairlead_reap_orphans", "Resources whose container is gone, by what is to be done with them.", stat.Label{Name: "decision", Value: string(d)})
	}
	r.swept = deps.Stats.Counter("fairlead_reap_swept_total", "Orphans that clean removed or moved into quarantine.")
	r.failed = deps.Stats.Counter("fairlead_reap_failed_total", "Orphans that clean could not remove.")
	return r, nil
}

// Run observes at an interval until ctx ends and deletes what has been in quarantine long enough. It never cleans.
func (r *Reaper) Run(ctx context.Context) error {
	agent.Ready(ctx)
	tick := time.NewTicker(r.cfg.every())
	defer tick.Stop()
	for {
		if _, err := r.Orphans(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if err := r.purge(time.Now()); err != nil {
			r.deps.Log.Warn("quarantine could not be emptied", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Found is what one observation found.
type Found struct {
	At         time.Time                `json:"at"`
	Grace      time.Duration            `json:"grace_ns"`
	Verdicts   []Verdict                `json:"verdicts"`
	Unanswered []container.RuntimeState `json:"unanswered"` // runtimes whose kinds are therefore kept
	Blind      []string                 `json:"blind"`      // parts and detectors that could not look, with the cause
	Quarantine []Kept                   `json:"quarantine"` // what undo can bring back
}

// Orphans observes once more and gives a verdict on everything there is. It blocks for the host and the runtimes.
func (r *Reaper) Orphans(ctx context.Context) (Found, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.observe(ctx)
	if err == nil {
		r.finish(ctx, f.Verdicts)
	}
	return f, err
}

// open reads what earlier agents left. The lock is held.
func (r *Reaper) open() (err error) {
	if r.opened {
		return nil
	}
	if r.boot, err = r.deps.Root.BootID(); err != nil {
		return err
	}
	if _, err = r.deps.State.ReadJSON("record.json", &r.record); err != nil {
		return err
	}
	if r.audit, r.begun, err = openAudit(r.deps.State.File(auditName)); err != nil {
		return err
	}
	r.quarantine = quarantine{state: r.deps.State, proc: r.deps.Root.Proc, step: r.step}
	err = r.quarantine.open(func(k Kept, became string) error {
		r.begun = slices.DeleteFunc(r.begun, func(b Resource) bool { return b.Ref() == k.Ref })
		return r.audit.write(line{Op: became, Ref: k.Ref, Kind: k.Resource.Kind, ID: k.Resource.ID, To: k.To, Error: "the agent was ended in the middle"})
	})
	r.opened = err == nil
	return err
}

// observe looks at everything, decides, and keeps the record. The lock is held.
func (r *Reaper) observe(ctx context.Context) (Found, error) {
	if err := r.open(); err != nil {
		return Found{}, err
	}
	f := Found{At: time.Now(), Grace: r.cfg.Grace}
	have, blind := r.collect(ctx)
	// After the resources, so that a container made meanwhile is in the list.
	seen := r.deps.Inventory.Refresh(ctx)
	if err := ctx.Err(); err != nil {
		return f, context.Cause(ctx)
	}
	in := Input{Seen: seen, Have: have, At: f.At, Partial: len(blind) > 0, Before: r.record, Boot: r.boot, Now: time.Now(), Rules: r.cfg.rules()}
	if r.deps.Busy != nil {
		in.Busy = r.deps.Busy()
	}
	verdicts, next := Plan(in)
	if !sameRecord(r.record, next) {
		if err := r.deps.State.WriteJSON("record.json", next); err != nil {
			return f, err // without the promise a restart would shorten the grace
		}
	}
	r.record = next
	f.Verdicts, f.Unanswered, f.Blind, f.Quarantine = verdicts, next.unanswered(seen), blind, slices.Clone(r.quarantine.kept)
	r.tell(verdicts)
	return f, nil
}

// collect asks every Owner. One that fails, or panics, leaves the others be.
func (r *Reaper) collect(ctx context.Context) (have []Resource, blind []string) {
	for _, name := range slices.Sorted(maps.Keys(r.deps.Owners)) {
		var some []Resource
		err := agent.Go(ctx, func(ctx context.Context) (err error) {
			some, err = r.deps.Owners[name].Owned(ctx)
			return err
		})
		if err != nil {
			blind = append(blind, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		for i := range some {
			some[i].Source = name
		}
		have = append(have, some...)
	}
	return have, blind
}

// tell counts the orphans and says each once.
func (r *Reaper) tell(verdicts []Verdict) {
	count, known := map[Decision]int{}, map[string]bool{}
	for _, v := range verdicts {
		if v.Decision == Keep {
			continue
		}
		count[v.Decision]++
		known[v.Ref] = true
		if !r.known[v.Ref] {
			r.deps.Log.Info("orphan found", "ref", v.Ref, "kind", v.Resource.Kind, "id", v.Resource.ID, "container", v.Owner, "decision", v.Decision, "reason", v.Reason)
		}
	}
	r.known = known
	for d, g := range r.orphans {
		g.Set(float64(count[d]))
	}
}

// finish ends what an agent that was killed had begun, unless the resource has an owner by now or may have one.
func (r *Reaper) finish(ctx context.Context, verdicts []Verdict) {
	var left []Resource
	for _, b := range r.begun {
		i := slices.IndexFunc(verdicts, func(v Verdict) bool { return v.Resource.Kind == b.Kind && v.Resource.ID == b.ID })
		l := line{Op: "interrupted", Ref: b.Ref(), Kind: b.Kind, ID: b.ID, Error: "the agent was ended in the middle"}
		switch {
		case i >= 0 && (verdicts[i].Why == Unanswered || verdicts[i].Why == Busy):
			left = append(left, b)
			continue
		case i >= 0 && (verdicts[i].Why == Owned || verdicts[i].Why == Alive || verdicts[i].Why == Protected):
			l.Reason = "left as it is: " + verdicts[i].Reason
		case b.Dir != "":
			l.Reason = "it was not moved; clean it again"
		default:
			l.Op, l.Reason = "removed", "finished after the agent was ended in the middle"
			l.Error = ""
			if err := r.release(ctx, b); err != nil {
				l.Op, l.Error = "failed", err.Error()
			}
		}
		if err := r.audit.write(l); err != nil {
			r.deps.Log.Error("interrupted clean could not be ended", "kind", b.Kind, "id", b.ID, "err", err)
			left = append(left, b)
			continue
		}
		r.deps.Log.Warn("clean was interrupted by the agent's end", "kind", b.Kind, "id", b.ID, "became", l.Op, "reason", l.Reason, "err", l.Error)
	}
	r.begun = left
}

var errNoOwner = errors.New("nobody here can release it")

func (r *Reaper) release(ctx context.Context, res Resource) error {
	o := r.deps.Owners[res.Source]
	if o == nil {
		return errNoOwner
	}
	return agent.Go(ctx, func(ctx context.Context) error { return o.Release(ctx, res) })
}
