package reap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Result is what clean did with one resource.
type Result string

// The results.
const (
	WouldRemove Result = "would be removed"
	WouldMove   Result = "would be quarantined"
	Removed     Result = "removed"
	Quarantined Result = "quarantined"
	KeptBack    Result = "kept"
	Failed      Result = "failed"
)

// Outcome is one resource and what clean did with it.
type Outcome struct {
	Verdict
	Result Result `json:"result"`
	Error  string `json:"error,omitempty"` // for failed
}

// ErrUnknownRef is returned for a name that stands for no resource, or none in quarantine.
var ErrUnknownRef = errors.New("no such resource")

// Clean sweeps the orphans with these refs, or all when there are none. Unless yes is set it only says what it would do.
// Before each one everything is looked at once more: whatever has got an owner, or doubt, since is kept. One that fails
// does not stop the others.
func (r *Reaper) Clean(ctx context.Context, refs []string, yes bool) ([]Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.observe(ctx)
	if err != nil {
		return nil, err
	}
	r.finish(ctx, f.Verdicts)
	chosen, err := choose(f.Verdicts, refs)
	if err != nil {
		return nil, err
	}
	out := make([]Outcome, 0, len(chosen))
	for _, v := range chosen {
		o := Outcome{Verdict: v, Result: KeptBack}
		switch {
		case v.Decision != Sweep:
		case !yes && v.Undo:
			o.Result = WouldMove
		case !yes:
			o.Result = WouldRemove
		default:
			if o, err = r.sweep(ctx, v); err != nil {
				return out, err
			}
		}
		out = append(out, o)
	}
	return out, nil
}

func choose(verdicts []Verdict, refs []string) ([]Verdict, error) {
	var out []Verdict
	for _, ref := range refs {
		if !slices.ContainsFunc(verdicts, func(v Verdict) bool { return v.Ref == ref }) {
			return nil, fmt.Errorf("%w: %s", ErrUnknownRef, ref)
		}
	}
	for _, v := range verdicts {
		if len(refs) == 0 && v.Decision == Sweep || slices.Contains(refs, v.Ref) {
			out = append(out, v)
		}
	}
	return out, nil
}

// sweep removes one orphan. An error means that nothing more can be done, because it could not be written down.
func (r *Reaper) sweep(ctx context.Context, v Verdict) (Outcome, error) {
	f, err := r.observe(ctx)
	if err != nil {
		return Outcome{}, err
	}
	i := slices.IndexFunc(f.Verdicts, func(n Verdict) bool { return n.Resource.key() == v.Resource.key() })
	if i < 0 {
		v.Reason = "it has gone with what was removed before it, or by itself"
		return Outcome{Verdict: v, Result: Removed}, nil
	}
	v = f.Verdicts[i]
	if v.Decision != Sweep {
		return Outcome{Verdict: v, Result: KeptBack}, nil
	}
	res := v.Resource
	begin := line{Op: "begin", Ref: v.Ref, Kind: res.Kind, ID: res.ID, Owner: v.Owner, Reason: v.Reason, Evidence: v.Evidence, Resource: &res}
	r.step("begin")
	if err := r.audit.write(begin); err != nil {
		return Outcome{}, err
	}
	end := line{Op: "removed", Ref: v.Ref, Kind: res.Kind, ID: res.ID}
	o := Outcome{Verdict: v, Result: Removed}
	r.step("act")
	if res.Dir != "" {
		k, takeErr := r.take(res)
		o.Result, end.Op, end.To, err = Quarantined, "quarantined", k.To, takeErr
	} else {
		err = r.release(ctx, res)
	}
	if err != nil {
		o.Result, o.Error, end.Op, end.Error = Failed, err.Error(), "failed", err.Error()
		r.failed.Inc()
	} else {
		r.swept.Inc()
	}
	r.deps.Log.Info("orphan swept", "ref", v.Ref, "kind", res.Kind, "id", res.ID, "container", v.Owner, "result", o.Result, "err", err)
	r.step("end")
	return o, r.audit.write(end)
}

// take moves a resource into quarantine.
func (r *Reaper) take(res Resource) (_ Kept, err error) {
	if h, ok := r.deps.Owners[res.Source].(Holder); ok {
		free, err := h.Hold(res)
		if err != nil {
			return Kept{}, err
		}
		defer func() { err = errors.Join(err, free()) }()
	}
	return r.quarantine.take(res, time.Now())
}

// Undo brings back what clean moved into quarantine.
func (r *Reaper) Undo(ref string) (Kept, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return Kept{}, err
	}
	k, ok := r.quarantine.find(ref)
	if !ok {
		return k, fmt.Errorf("%w in quarantine: %s", ErrUnknownRef, ref)
	}
	if err := r.quarantine.giveBack(k); err != nil {
		return k, fmt.Errorf("undo %s: %w", ref, err)
	}
	return k, r.audit.write(line{Op: "undone", Ref: k.Ref, Kind: k.Resource.Kind, ID: k.Resource.ID, To: k.From})
}

// purge deletes what has been in quarantine long enough.
func (r *Reaper) purge(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, k := range slices.Clone(r.quarantine.kept) {
		if now.Sub(k.At) < r.cfg.Quarantine && k.Doing != "deleting" {
			continue
		}
		err := r.quarantine.remove(k)
		if err == nil {
			err = r.audit.write(line{Op: "purged", Ref: k.Ref, Kind: k.Resource.Kind, ID: k.Resource.ID, To: k.To})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
