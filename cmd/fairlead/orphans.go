package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/agent/reap/detect"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

const orphansHelp = `fairlead orphans ls [--all] [--json]
fairlead orphans clean [--yes] [REF...]
fairlead orphans undo REF

What dead containers left behind, with the reason for each verdict. clean only says what it would do unless --yes is
given, looks at everything once more before it acts, and moves what can be brought back into quarantine, from where undo
brings it. Nothing is removed while a runtime that may own it does not answer, or while a process lives in it. Example:

  fairlead orphans ls
  fairlead orphans clean --yes 3f0c2a91`

// orphanWait is how long a command waits for the daemon: it looks at the whole host before each removal.
const orphanWait = 5 * time.Minute

func runOrphans(e env, args []string) error {
	f := newFlags(e, "orphans", orphansHelp).client()
	all := f.Bool("all", false, "ls: also what has an owner, or nothing to do with containers")
	yes := f.Bool("yes", false, "clean: do it")
	words, err := f.words(args)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return misuse("expected `ls`, `clean` or `undo`, see --help")
	}
	verb, words := words[0], words[1:]
	if !slices.Contains([]string{"ls", "clean", "undo"}, verb) {
		return misuse("unexpected %q, see --help", verb)
	}
	switch {
	case *all && verb != "ls":
		return misuse("--all is for `orphans ls`, see --help")
	case *yes && verb != "clean":
		return misuse("--yes is for `orphans clean`, see --help")
	case verb == "ls" && len(words) > 0:
		return misuse("unexpected %q, see --help", words[0])
	case verb == "undo" && len(words) != 1:
		return misuse("undo takes one REF, see --help")
	case verb == "ls":
		return listOrphans(e, f, *all)
	case verb == "clean":
		return cleanOrphans(e, f, cleanRequest{words, *yes})
	}
	return undoOrphan(e, f, words[0])
}

func listOrphans(e env, f *flags, all bool) error {
	var found reap.Found
	printed, err := f.ask(e, "/v1/orphans", &found)
	if err != nil || printed {
		return err
	}
	for _, r := range found.Unanswered {
		fmt.Fprintf(e.stdout, "! %s does not answer (%s): what may be its own is kept\n", r.Name, r.Error)
	}
	for _, b := range found.Blind {
		fmt.Fprintf(e.stdout, "! could not look: %s\n", b)
	}
	shown := slices.DeleteFunc(found.Verdicts, func(v reap.Verdict) bool { return !all && v.Quiet() })
	if len(shown) == 0 {
		fmt.Fprintln(e.stdout, "no orphans")
	} else {
		printVerdicts(e, shown)
	}
	if len(found.Quarantine) > 0 {
		var rows [][]string
		for _, k := range found.Quarantine {
			rows = append(rows, []string{k.Ref, ago(k.At), k.From, k.To})
		}
		fmt.Fprintln(e.stdout)
		table(e.stdout, "QUARANTINED FOR FROM NOW-AT", rows)
	}
	return nil
}

func printVerdicts(e env, verdicts []reap.Verdict) {
	var rows [][]string
	for _, v := range verdicts {
		rows = append(rows, []string{v.Ref, string(v.Resource.Kind), shortIDs(v.Resource.ID), shortIDs(v.Owner), string(v.Decision), shortIDs(v.Reason)})
	}
	table(e.stdout, "REF KIND ID CONTAINER VERDICT REASON", rows)
	fmt.Fprintln(e.stdout)
	for _, v := range verdicts {
		if id := v.Resource.ID; shortIDs(id) != id && len(v.Evidence) > 0 {
			fmt.Fprintf(e.stdout, "%s  %s\n", v.Ref, id)
		}
		for _, text := range v.Evidence {
			fmt.Fprintf(e.stdout, "%s  %s\n", v.Ref, text)
		}
	}
}

var longID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// shortIDs cuts the ids that runtimes draw to the 12 digits that people know them by, wherever they are in text.
func shortIDs(text string) string {
	return longID.ReplaceAllStringFunc(text, func(id string) string { return id[:12] })
}

type cleanRequest struct {
	Refs []string `json:"refs"`
	Yes  bool     `json:"yes"`
}

func cleanOrphans(e env, f *flags, req cleanRequest) error {
	var done []reap.Outcome
	if err := f.tell("/v1/orphans/clean", req, &done); err != nil {
		return err
	}
	failed := slices.ContainsFunc(done, func(o reap.Outcome) bool { return o.Result == reap.Failed })
	if *f.json {
		if err := printJSON(e.stdout, done); err != nil {
			return err
		}
	} else {
		printOutcomes(e, done, req.Yes)
	}
	if failed {
		return errUnwell
	}
	return nil
}

func printOutcomes(e env, done []reap.Outcome, yes bool) {
	if len(done) == 0 {
		fmt.Fprintln(e.stdout, "nothing to clean")
		return
	}
	var rows [][]string
	for _, o := range done {
		why := o.Reason
		if o.Error != "" {
			why = o.Error
		}
		rows = append(rows, []string{o.Ref, string(o.Resource.Kind), shortIDs(o.Resource.ID), string(o.Result), shortIDs(why)})
	}
	table(e.stdout, "REF KIND ID RESULT WHY", rows)
	if !yes {
		fmt.Fprintln(e.stdout, "\nnothing was touched; with --yes it is done")
	}
}

func undoOrphan(e env, f *flags, ref string) error {
	var back reap.Kept
	if err := f.tell("/v1/orphans/undo", undoRequest{ref}, &back); err != nil {
		return err
	}
	if *f.json {
		return printJSON(e.stdout, back)
	}
	fmt.Fprintf(e.stdout, "%s is back at %s\n", ref, back.From)
	return nil
}

type undoRequest struct {
	Ref string `json:"ref"`
}

// tell posts to the daemon and waits for what it did.
func (f *flags) tell(path string, in, out any) error {
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), orphanWait)
	defer cancel()
	return c.Post(ctx, path, in, out)
}

// newReaper puts the reaper together with everybody who can list and release something.
func newReaper(f File, dir *state.Dir, d *daemon, stats *stat.Registry, log *slog.Logger) (*reap.Reaper, error) {
	own, err := dir.Sub("orphans")
	if err != nil {
		return nil, err
	}
	h := detect.DefaultHost(f.root(), f.Runtimes.Run, f.Orphans.Containerd...)
	h.Leases = append(h.Leases, f.Orphans.Leases...)
	h.OurGroups = []uint32{plan.Group, plan.RetiredGroup, plan.TunnelGroup}
	owners := detect.Owners(h)
	owners["overlay"], owners["volumes"], owners["logship"] = d.overlay, d.volumes, d.logship
	busy := func() map[container.ID]bool {
		all := d.volumes.Busy()
		maps.Copy(all, d.logship.Busy())
		return all
	}
	return reap.New(f.Orphans, reap.Deps{
		Log: log, Stats: stats, State: own, Root: f.root(), Inventory: d.inventory, Owners: owners, Busy: busy,
	})
}

// orphanRoutes are the reaper's part of the operator API.
func orphanRoutes(s *api.Server, r *reap.Reaper) {
	s.Handle("GET /v1/orphans", func(q *http.Request) (any, error) { return r.Orphans(q.Context()) })
	s.Handle("POST /v1/orphans/clean", func(q *http.Request) (any, error) {
		var in cleanRequest
		if err := api.Body(q, &in); err != nil {
			return nil, err
		}
		// Not cut short when the operator's command is: what was begun is ended and told in the audit log.
		done, err := r.Clean(context.WithoutCancel(q.Context()), in.Refs, in.Yes)
		return done, orphanError(err)
	})
	s.Handle("POST /v1/orphans/undo", func(q *http.Request) (any, error) {
		var in undoRequest
		if err := api.Body(q, &in); err != nil {
			return nil, err
		}
		back, err := r.Undo(in.Ref)
		return back, orphanError(err)
	})
}

func orphanError(err error) error {
	if errors.Is(err, reap.ErrUnknownRef) {
		return api.Errorf(http.StatusNotFound, "%v; `fairlead orphans ls` names them", err)
	}
	return err
}
