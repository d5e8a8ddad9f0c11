package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

// runtime plays a container runtime that can fall silent, refuse, and break its stream, at times of the test's choice.
// The real ones are met by the tests that carry the kernel tag.
type runtime struct {
	mu      sync.Mutex
	have    map[Handle]Container
	silent  bool  // takes every question and answers none
	refuses error // answers every question by this
	stream  chan Handle
	broken  chan struct{}

	lists, gets, watches int
}

func newRuntime(ids ...string) *runtime {
	r := &runtime{have: map[Handle]Container{}}
	for _, id := range ids {
		r.have[Handle(id)] = Container{ID: ID(id), Name: id, Runtime: "docker", State: Running, Labels: map[string]string{"app": id}}
	}
	return r
}

func (r *runtime) Name() Runtime  { return "docker" }
func (r *runtime) Socket() string { return "/played" }

func (r *runtime) mood(ctx context.Context, asked *int) error {
	r.mu.Lock()
	silent, refuses := r.silent, r.refuses
	*asked++
	r.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return refuses
}

func (r *runtime) Ping(ctx context.Context) error { return r.mood(ctx, new(int)) }

func (r *runtime) List(ctx context.Context) ([]Container, error) {
	err := r.mood(ctx, &r.lists)
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.have)), err
}

func (r *runtime) Get(ctx context.Context, h Handle) (Container, error) {
	err := r.mood(ctx, &r.gets)
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.have[h]; ok || err != nil {
		return c, err
	}
	return Container{}, ErrGone
}

func (r *runtime) Watch(ctx context.Context, changed func(Handle)) error {
	if err := r.mood(ctx, &r.watches); err != nil {
		return err
	}
	r.mu.Lock()
	broken := r.broken
	r.mu.Unlock()
	changed("")
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-broken:
			return errors.New("connection reset")
		case h := <-r.stream:
			changed(h)
		}
	}
}

// set changes a container and tells of it.
func (r *runtime) set(id string, state State) {
	r.quietly(func() {
		c := r.have[Handle(id)]
		c.ID, c.Name, c.Runtime, c.State = ID(id), id, "docker", state
		r.have[Handle(id)] = c
	})
	r.stream <- Handle(id)
}

func (r *runtime) quietly(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// following runs the story with an inventory that follows the played runtime and nothing else.
func following(t *testing.T, r *runtime, story func(t *testing.T, v *Inventory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r.stream, r.broken = make(chan Handle, 1000), make(chan struct{}) // time stands still for channels from outside
		v, err := New(DefaultConfig(), Deps{Host: host.DefaultRoot(), Log: slog.New(slog.DiscardHandler), Stat: new(stat.Registry)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		g := agent.NewGroup(ctx)
		g.Go(v.publish)
		g.Go(func(ctx context.Context) error { return v.follow(ctx, r) })
		time.Sleep(time.Second)
		story(t, v)
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func ids(s *Snapshot) string {
	var out []string
	for _, c := range s.Containers {
		out = append(out, string(c.ID)+" "+string(c.State))
	}
	return fmt.Sprint(out)
}

func TestContainersAreKeptWhileTheirRuntimeIsSilent(t *testing.T) {
	r := newRuntime("a", "b")
	following(t, r, func(t *testing.T, v *Inventory) {
		if s := v.Snapshot(); ids(s) != "[a running b running]" || !s.Answered("docker") {
			t.Fatalf("at first: %s, %+v", ids(s), s.Runtimes)
		}
		r.quietly(func() { r.silent = true; delete(r.have, "b") })
		time.Sleep(pingEvery + answerWithin + time.Second)
		s := v.Snapshot()
		if s.Answered("docker") || ids(s) != "[a running b running]" || len(s.Gone) != 0 {
			t.Errorf("while it is silent: %s, %+v", ids(s), s.Runtimes)
		}
		if age := time.Since(s.Runtimes[0].Since); age > 2*time.Second || s.Runtimes[0].Error == "" {
			t.Errorf("unanswered since %s ago with error %q", age, s.Runtimes[0].Error)
		}
		time.Sleep(time.Hour)
		if s := v.Snapshot(); ids(s) != "[a running b running]" {
			t.Errorf("after an hour of silence: %s", ids(s))
		}
		r.quietly(func() { r.silent = false })
		time.Sleep(answerWithin + lastRetry)
		s = v.Snapshot()
		if !s.Answered("docker") || ids(s) != "[a running]" {
			t.Errorf("after its return: %s, %+v", ids(s), s.Runtimes)
		}
		if len(s.Gone) != 1 || s.Gone[0].ID != "b" || s.Gone[0].Labels["app"] != "b" {
			t.Errorf("tombstones are %+v, want b with its labels", s.Gone)
		}
	})
}

func TestABrokenStreamIsFollowedByAList(t *testing.T) {
	r := newRuntime("a")
	following(t, r, func(t *testing.T, v *Inventory) {
		r.quietly(func() {
			close(r.broken)
			r.broken = make(chan struct{})
			r.have["b"] = Container{ID: "b", Runtime: "docker", State: Running} // nobody tells of it
		})
		time.Sleep(time.Second)
		if s := v.Snapshot(); ids(s) != "[a running b running]" || !s.Answered("docker") {
			t.Errorf("after the break: %s, %+v", ids(s), s.Runtimes)
		}
	})
}

func TestARefusingRuntimeIsAskedAgainAtMostEveryTwoSeconds(t *testing.T) {
	r := newRuntime("a")
	r.refuses = errors.New("connection refused")
	following(t, r, func(t *testing.T, v *Inventory) {
		time.Sleep(time.Minute)
		if s := v.Snapshot(); s.Answered("docker") || len(s.Runtimes) != 1 {
			t.Errorf("runtimes are %+v", s.Runtimes)
		}
		r.quietly(func() {
			if r.watches < 30 || r.watches > 70 {
				t.Errorf("asked %d times in a minute, want about 40", r.watches)
			}
		})
	})
}

func TestOnlyWhatChangedIsAskedFor(t *testing.T) {
	var all []string
	for i := range 500 {
		all = append(all, fmt.Sprintf("c%03d", i))
	}
	r := newRuntime(all...)
	following(t, r, func(t *testing.T, v *Inventory) {
		for range 20 {
			r.set("c250", Paused)
		}
		time.Sleep(100 * time.Millisecond)
		if c, ok := v.Snapshot().Get("docker", "c250"); !ok || c.State != Paused {
			t.Errorf("the change was not seen: %+v", c)
		}
		r.quietly(func() {
			if r.lists != 1 || r.gets > 20 || r.gets == 0 {
				t.Errorf("%d lists and %d gets for one container's events", r.lists, r.gets)
			}
		})
		for _, id := range all {
			r.set(id, Exited)
		}
		time.Sleep(100 * time.Millisecond)
		if c, ok := v.Snapshot().Get("docker", "c499"); !ok || c.State != Exited {
			t.Errorf("the flood was not seen: %+v", c)
		}
	})
}

func TestAMissedEventIsFoundWithinAMinute(t *testing.T) {
	r := newRuntime("a")
	following(t, r, func(t *testing.T, v *Inventory) {
		r.quietly(func() { delete(r.have, "a") })
		time.Sleep(relistEvery)
		if s := v.Snapshot(); len(s.Containers) != 0 || len(s.Gone) != 1 {
			t.Errorf("containers %s, tombstones %+v", ids(s), s.Gone)
		}
	})
}

func TestATombstoneStandsTenMinutes(t *testing.T) {
	r := newRuntime("a", "b")
	following(t, r, func(t *testing.T, v *Inventory) {
		r.quietly(func() { delete(r.have, "a") })
		r.stream <- "a"
		time.Sleep(tombstoneAge - 2*relistEvery)
		if s := v.Snapshot(); ids(s) != "[b running]" || len(s.Gone) != 1 || s.Gone[0].Labels["app"] != "a" {
			t.Errorf("before: %s, tombstones %+v", ids(s), s.Gone)
		}
		time.Sleep(3 * relistEvery)
		if s := v.Snapshot(); len(s.Gone) != 0 {
			t.Errorf("after: tombstones %+v", s.Gone)
		}
	})
}

func TestASlowFollowerGetsTheNewestAndHoldsNobodyUp(t *testing.T) {
	r := newRuntime("a")
	following(t, r, func(t *testing.T, v *Inventory) {
		var seen []uint64
		for s := range v.Follow(t.Context()) {
			seen = append(seen, s.Seq)
			if len(seen) == 2 {
				if c, _ := s.Get("docker", "a"); c.State != Exited {
					t.Errorf("the second snapshot has %s, want the newest", ids(s))
				}
				break
			}
			for _, state := range []State{Paused, Running, Paused, Running, Stopping, Exited} {
				r.set("a", state)
				time.Sleep(time.Second) // each is published meanwhile
			}
		}
		if seen[1] < seen[0]+6 {
			t.Errorf("snapshots %v: the publisher waited for its follower", seen)
		}
	})
}

func TestFollowEndsWithItsContext(t *testing.T) {
	r := newRuntime("a")
	following(t, r, func(t *testing.T, v *Inventory) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
		defer cancel()
		n := 0
		for range v.Follow(ctx) {
			n++
		}
		if n != 1 || ctx.Err() == nil {
			t.Errorf("%d snapshots although nothing changed", n)
		}
	})
}

func TestAPanicInASourceReachesTheSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := New(DefaultConfig(), Deps{Log: slog.New(slog.DiscardHandler), Stat: new(stat.Registry)})
		if err != nil {
			t.Fatal(err)
		}
		err = v.follow(t.Context(), panicking{newRuntime()})
		if p := (*agent.PanicError)(nil); !errors.As(err, &p) {
			t.Errorf("got %v, want a panic's error", err)
		}
	})
}

type panicking struct{ *runtime }

func (panicking) List(context.Context) ([]Container, error) { panic("no map") }
