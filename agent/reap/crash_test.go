package reap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
)

// crash is what a test panics with where the agent is to be killed.
type crash struct{ step string }

// crashes runs f and gives the step at which it was ended, or "".
func crashes(f func()) (at string) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case crash:
			at = v.step
		default:
			panic(v)
		}
	}()
	f()
	return ""
}

// shelf is a directory of one container's things each: directories that are moved, and pairs of files that are removed
// one after the other.
type shelf struct {
	dir  string
	step func(string)
}

func (s shelf) Owned(context.Context) ([]Resource, error) {
	var out []Resource
	for _, kind := range []string{"moved", "removed"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, kind))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(s.dir, kind, e.Name())
			r := Resource{Kind: State, ID: path, Claim: Claim{Runtimes: []string{"containerd"}, ID: container.ID(e.Name()), Namespace: "default"}}
			if kind == "moved" {
				r.Dir, r.Room = path, filepath.Join(s.dir, "room")
			}
			out = append(out, r)
		}
	}
	return out, nil
}

func (s shelf) Release(_ context.Context, r Resource) error {
	for _, file := range []string{"a", "b", ""} {
		s.step("release " + file)
		if err := os.Remove(filepath.Join(r.ID, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// answering is an inventory whose one runtime answers each time with the same containers.
type answering struct{ containers []container.Container }

func (a answering) Refresh(context.Context) *container.Snapshot {
	return &container.Snapshot{
		At: time.Now(), Containers: a.containers,
		Runtimes: []container.RuntimeState{{Name: "containerd", Socket: "/run/c.sock", Answered: true, Asked: time.Now()}},
	}
}

const testGrace = time.Minute

func newTestReaper(t *testing.T, dir string, step func(string)) *Reaper {
	t.Helper()
	st, err := state.Open(filepath.Join(dir, "state"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Grace = testGrace
	r, err := New(cfg, Deps{
		Log: slog.New(slog.DiscardHandler), Stats: &stat.Registry{}, State: st, Root: host.DefaultRoot(),
		Inventory: answering{[]container.Container{{ID: "living", Name: "living", Runtime: "containerd", Namespace: "default", State: container.Running}}},
		Owners:    map[string]Owner{"shelf": shelf{dir, step}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.step = step
	return r
}

func stock(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"moved/one", "moved/two", "moved/living", "removed/three", "removed/living"} {
		path := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(path, 0o755), os.WriteFile(filepath.Join(path, "a"), []byte(name), 0o600), os.WriteFile(filepath.Join(path, "b"), nil, 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// explained fails unless each begin in the audit log has an end, and the quarantine holds what its catalogue says.
func explained(t *testing.T, r *Reaper, dir string) {
	t.Helper()
	text, err := os.ReadFile(r.deps.State.File(auditName))
	if err != nil {
		t.Fatal(err)
	}
	if left := begun(text); len(left) > 0 {
		t.Errorf("begun and not ended: %+v\n%s", left, text)
	}
	var kept []Kept
	if _, err := r.deps.State.ReadJSON(catalogueName, &kept); err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, k := range kept {
		listed = append(listed, filepath.Base(k.To))
		if k.Doing != "" {
			t.Errorf("%s is still %s", k.To, k.Doing)
		}
	}
	slices.Sort(listed)
	if have := filesIn(t, filepath.Join(dir, "room")); !slices.Equal(have, listed) {
		t.Errorf("in quarantine are %v, its catalogue has %v", have, listed)
	}
}

func TestKilledAtAnyStepOfCleanNothingStaysHalfDoneOrUnexplained(t *testing.T) {
	t.Parallel()
	var steps []string
	for n := 1; ; n++ {
		var at string
		synctest.Test(t, func(t *testing.T) { at = killedAt(t, n) })
		if at == "" {
			break
		}
		steps = append(steps, at)
	}
	if len(steps) < 15 {
		t.Fatalf("only %d steps: %v", len(steps), steps)
	}
	t.Logf("killed at %v", steps)
}

func killedAt(t *testing.T, n int) (at string) {
	dir := t.TempDir()
	stock(t, dir)
	ctx := context.Background()
	step := func(what string) {
		if n--; n <= 0 { // again and again: a panic in an Owner is caught
			panic(crash{what})
		}
	}
	first := newTestReaper(t, dir, step)
	if _, err := first.Orphans(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(testGrace)
	at = crashes(func() {
		if done, err := first.Clean(ctx, nil, true); err != nil || len(done) != 3 {
			t.Fatalf("clean: %v, %v", done, err)
		}
	})

	second := newTestReaper(t, dir, func(string) {})
	if _, err := second.Orphans(ctx); err != nil {
		t.Fatalf("killed at %q: %v", at, err)
	}
	explained(t, second, dir)
	if _, err := second.Clean(ctx, nil, true); err != nil {
		t.Fatalf("killed at %q: %v", at, err)
	}
	explained(t, second, dir)
	moved, removed := filesIn(t, filepath.Join(dir, "moved")), filesIn(t, filepath.Join(dir, "removed"))
	if len(moved) != 1 || len(removed) != 1 || moved[0] != "living" || removed[0] != "living" || len(filesIn(t, filepath.Join(dir, "room"))) != 2 {
		t.Fatalf("killed at %q: left are %v and %v, in quarantine %v", at, moved, removed, filesIn(t, filepath.Join(dir, "room")))
	}
	return at
}

func TestKilledAtAnyStepOfUndoTheDirectoryIsHereOrThere(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		dir := t.TempDir()
		stock(t, dir)
		var at string
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			r := newTestReaper(t, dir, func(string) {})
			_, err := r.Orphans(ctx)
			time.Sleep(testGrace)
			done, err2 := r.Clean(ctx, nil, true)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(done, func(o Outcome) bool { return o.Resource.Claim.ID == "one" })
			left := n
			r.quarantine.step = func(what string) {
				if left--; left == 0 {
					panic(crash{what})
				}
			}
			at = crashes(func() {
				if _, err := r.Undo(done[i].Ref); err != nil {
					t.Fatal(err)
				}
			})
			second := newTestReaper(t, dir, func(string) {})
			if _, err := second.Orphans(ctx); err != nil {
				t.Fatal(err)
			}
			explained(t, second, dir)
			if _, err := second.Undo(done[i].Ref); err != nil && !errors.Is(err, ErrUnknownRef) {
				t.Fatalf("killed at %q: %v", at, err)
			}
			explained(t, second, dir)
			if b, err := os.ReadFile(filepath.Join(dir, "moved/one/a")); err != nil || string(b) != "moved/one" {
				t.Fatalf("killed at %q: it did not come back: %q, %v", at, b, err)
			}
		})
		if at == "" {
			if n < 4 {
				t.Fatalf("only %d steps", n)
			}
			return
		}
	}
}

func TestUndoNeverReplacesWhatStandsThereByNow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stock(t, dir)
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		r := newTestReaper(t, dir, func(string) {})
		_, err := r.Orphans(ctx)
		time.Sleep(testGrace)
		done, err2 := r.Clean(ctx, nil, true)
		if err := errors.Join(err, err2, os.Mkdir(filepath.Join(dir, "moved/one"), 0o755)); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(done, func(o Outcome) bool { return o.Resource.Claim.ID == "one" })
		if _, err := r.Undo(done[i].Ref); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("got %v", err)
		}
		explained(t, r, dir)
		if left := filesIn(t, filepath.Join(dir, "moved/one")); len(left) > 0 {
			t.Fatalf("what stood there has now %v", left)
		}
	})
}

func TestRestartOfTheAgentNeitherResetsNorShortensTheGrace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stock(t, dir)
	synctest.Test(t, func(t *testing.T) {
		sweeps := func() (n int) {
			f, err := newTestReaper(t, dir, func(string) {}).Orphans(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range f.Verdicts {
				if v.Decision == Sweep {
					n++
				}
			}
			return n
		}
		for passed := time.Duration(0); passed < testGrace; passed += testGrace / 4 {
			if n := sweeps(); n > 0 {
				t.Fatalf("%d are to be swept after %s", n, passed)
			}
			time.Sleep(testGrace / 4)
		}
		if n := sweeps(); n != 3 {
			t.Fatalf("%d are to be swept after the grace, want 3", n)
		}
	})
}

func TestCleanWithoutYesTouchesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stock(t, dir)
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		r := newTestReaper(t, dir, func(what string) { panic(what) })
		_, err := r.Orphans(ctx)
		time.Sleep(testGrace)
		done, err2 := r.Clean(ctx, nil, false)
		if err := errors.Join(err, err2); err != nil || len(done) != 3 || done[0].Result != WouldMove || done[2].Result != WouldRemove {
			t.Fatalf("got %+v, %v", done, err)
		}
		if _, err := r.Clean(ctx, []string{"deadbeef"}, true); !errors.Is(err, ErrUnknownRef) {
			t.Fatalf("an unknown ref: %v", err)
		}
	})
}

func TestQuarantineIsEmptiedAfterItsTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stock(t, dir)
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		r := newTestReaper(t, dir, func(string) {})
		_, err := r.Orphans(ctx)
		time.Sleep(testGrace)
		_, err2 := r.Clean(ctx, nil, true)
		if err := errors.Join(err, err2, r.purge(time.Now())); err != nil || len(filesIn(t, filepath.Join(dir, "room"))) != 2 {
			t.Fatalf("%v, in quarantine %v", err, filesIn(t, filepath.Join(dir, "room")))
		}
		if err := r.purge(time.Now().Add(r.cfg.Quarantine)); err != nil || len(filesIn(t, filepath.Join(dir, "room"))) != 0 {
			t.Fatalf("%v, in quarantine %v", err, filesIn(t, filepath.Join(dir, "room")))
		}
		explained(t, r, dir)
	})
}

func TestTornAuditLineIsEndedAndTheLogGoesOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), auditName)
	whole := func(op string) []byte {
		b, err := json.Marshal(line{Op: op, Ref: "r", Resource: &Resource{Kind: State, ID: "/x"}})
		if err != nil {
			t.Fatal(err)
		}
		return append(b, '\n')
	}
	text := slices.Concat(whole("begin"), whole("removed"), whole("begin"))
	for cut := range len(text) + 1 {
		if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		a, open, err := openAudit(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[int]int{0: 0, 1: 1, 2: 0, 3: 1}[bytes.Count(text[:cut], []byte("\n"))]; len(open) != want && cut < len(text) && text[cut] != '\n' {
			t.Fatalf("cut at %d: %d are open, want %d", cut, len(open), want)
		}
		err = errors.Join(a.write(line{Op: "removed", Ref: "r"}), a.f.Close())
		after, err2 := os.ReadFile(path)
		if err := errors.Join(err, err2); err != nil || len(begun(after)) > 0 || !bytes.HasSuffix(after, []byte("}\n")) {
			t.Fatalf("cut at %d: %v, %q", cut, err, after)
		}
	}
}

func ExampleVerdict() {
	verdicts, _ := Plan(Input{
		Seen: &container.Snapshot{}, Now: time.Unix(0, 0), Rules: Rules{Grace: time.Minute},
		Have: []Resource{{Kind: State, ID: "/run/x", Claim: Claim{Runtimes: []string{"docker"}, ID: "c1"}}},
	})
	fmt.Println(verdicts[0].Decision, verdicts[0].Reason)
	// Output: keep no runtime has answered that is a docker; what may be its own is kept
}
