package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

// bench is a running Supervisor in a bubble of synthetic time.
type bench struct {
	*Supervisor
	reg  *stat.Registry
	log  *bytes.Buffer // read it after Run has ended or while all goroutines wait
	stop func() error  // ends Run and gives its error; may be called twice
}

func start(t *testing.T, configure func(*Supervisor), parts ...agent.Part) *bench {
	t.Helper()
	b := &bench{reg: new(stat.Registry), log: new(bytes.Buffer)}
	b.Supervisor = New(slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), b.reg)
	if configure != nil {
		configure(b.Supervisor)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- b.Run(ctx, parts...) }()
	b.stop = sync.OnceValue(func() error { cancel(); return <-result })
	t.Cleanup(func() { _ = b.stop() })
	synctest.Wait()
	return b
}

func (b *bench) of(t *testing.T, name string) PartHealth {
	t.Helper()
	for _, h := range b.Health() {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no part %s in %+v", name, b.Health())
	return PartHealth{}
}

func well(name string) agent.Part {
	return agent.Part{Name: name, Run: func(ctx context.Context) error { agent.Ready(ctx); <-ctx.Done(); return nil }}
}

func TestPanickingPartIsRestartedAndItsSiblingsAreUntouched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		siblingStarts := 0
		sibling := agent.Part{Name: "metrics", Run: func(ctx context.Context) error {
			siblingStarts++
			agent.Ready(ctx)
			<-ctx.Done()
			return nil
		}}
		runs := 0
		b := start(t, nil, sibling, agent.Part{Name: "overlay", Run: func(ctx context.Context) error {
			if runs++; runs == 1 {
				var m map[string]int
				m["x"]++ //nolint:staticcheck // a real fault
			}
			agent.Ready(ctx)
			<-ctx.Done()
			return nil
		}})
		h := b.of(t, "overlay")
		if h.State != BackingOff || !strings.Contains(h.LastError, "assignment to entry in nil map") || h.Restarts != 0 {
			t.Errorf("after the panic: %+v", h)
		}
		if !strings.Contains(b.log.String(), "supervisor_test.go") {
			t.Errorf("the stack was not logged:\n%s", b.log)
		}
		time.Sleep(backoffFirst)
		synctest.Wait()
		if h = b.of(t, "overlay"); h.State != Running || h.Restarts != 1 || h.LastError == "" {
			t.Errorf("after the back-off: %+v", h)
		}
		label := stat.Label{Name: "part", Value: "overlay"}
		if n := b.reg.Counter("fairlead_supervisor_restarts_total", "", label).Value(); n != 1 {
			t.Errorf("restarts metric is %d", n)
		}
		if up := b.reg.Gauge("fairlead_supervisor_up", "", label).Value(); up != 1 {
			t.Errorf("up metric is %v", up)
		}
		if m := b.of(t, "metrics"); siblingStarts != 1 || m.State != Running || m.Restarts != 0 {
			t.Errorf("the sibling was started %d times: %+v", siblingStarts, m)
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if up := b.reg.Gauge("fairlead_supervisor_up", "", label).Value(); up != 0 || b.of(t, "overlay").State != Stopped {
			t.Errorf("stopped part: up %v, %+v", up, b.of(t, "overlay"))
		}
	})
}

func TestEveryEarlyEndOfAPartIsAFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"nil":    {func(context.Context) error { return nil }, errReturned.Error()},
		"error":  {func(context.Context) error { return errors.New("bind: no") }, "bind: no"},
		"goexit": {func(context.Context) error { runtime.Goexit(); return nil }, errExited.Error()},
		"cancelled by itself": {func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx.Err()
		}, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, nil, agent.Part{Name: "p", Run: c.run})
				if h := b.of(t, "p"); h.State != BackingOff || h.LastError != c.want {
					t.Errorf("%+v", h)
				}
			})
		})
	}
}

func TestBackoffDoublesUpToABoundAndStartsAnewAfterAHealthyMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		lasts := func(n int) time.Duration { // the tenth run is a healthy one
			if n == 10 {
				return healthyAfter
			}
			return 0
		}
		var ends []time.Time
		b := start(t, nil, agent.Part{Name: "p", Run: func(ctx context.Context) error {
			starts = append(starts, time.Now())
			select {
			case <-time.After(lasts(len(starts))):
			case <-ctx.Done():
			}
			ends = append(ends, time.Now())
			return errors.New("fault")
		}})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(starts) < 12 {
			t.Fatalf("%d starts in ten minutes", len(starts))
		}
		for i := range 11 {
			most := min(backoffMost, backoffFirst<<i)
			if i >= 9 { // after the tenth run
				most = backoffFirst << (i - 9)
			}
			if wait := starts[i+1].Sub(ends[i]); wait > most || wait < most/2 {
				t.Errorf("wait %d was %v, want between %v and %v", i, wait, most/2, most)
			}
		}
		if n := strings.Count(b.log.String(), "level=ERROR"); n != 2 {
			t.Errorf("the same fault was logged as an error %d times, want once before and once after the healthy minute:\n%s", n, b.log)
		}
		if n := strings.Count(b.log.String(), "part recovered"); n != 1 {
			t.Errorf("recovery was logged %d times", n)
		}
	})
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	for faults := range 100 {
		for _, r := range []float64{0, 0.5, 0.999999} {
			most := backoffMost
			if faults < 7 {
				most = backoffFirst << faults
			}
			if d := backoff(faults, r); d > most || d < most/2 {
				t.Errorf("backoff(%d, %v) = %v", faults, r, d)
			}
		}
	}
}

func TestPartWithoutAWordRunsAfterASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, agent.Part{Name: "mute", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		if h := b.of(t, "mute"); h.State != Starting {
			t.Errorf("at once: %+v", h)
		}
		began := time.Now()
		time.Sleep(settleAfter)
		synctest.Wait()
		if h := b.of(t, "mute"); h.State != Running || !h.Since.Equal(began.Add(settleAfter)) {
			t.Errorf("after a second: %+v", h)
		}
	})
}

func TestPartsStopInReverseOrderOneByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		slow := func(name string) agent.Part {
			return agent.Part{Name: name, Run: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(2 * time.Second) // the others must still run meanwhile
				ended = append(ended, name+" began "+time.Now().Format("05"))
				return nil
			}}
		}
		b := start(t, nil, slow("state"), slow("overlay"), slow("api"))
		began := time.Now()
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		var names []string
		for _, e := range ended {
			names = append(names, strings.Fields(e)[0])
		}
		if !slices.Equal(names, []string{"api", "overlay", "state"}) || time.Since(began) != 6*time.Second {
			t.Errorf("stopped %v in %v", ended, time.Since(began))
		}
	})
}

func TestLatePartsAreNamedWithinTheBound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stuck []bool // by part, in the order of start
		late  []string
		took  time.Duration
	}{
		"one":  {[]bool{false, true, false}, []string{"p1"}, stopEach},
		"all":  {[]bool{true, true, true, true, true}, []string{"p4", "p3", "p2", "p1", "p0"}, stopAll},
		"last": {[]bool{false, false, true, true, true, true}, []string{"p5", "p4", "p3", "p2"}, stopAll},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				var parts []agent.Part
				for i, stuck := range c.stuck {
					parts = append(parts, agent.Part{Name: "p" + string(rune('0'+i)), Run: func(ctx context.Context) error {
						<-ctx.Done()
						if stuck {
							<-release
						}
						return nil
					}})
				}
				b := start(t, nil, parts...)
				began := time.Now()
				err := b.stop()
				var late *LateError
				if !errors.As(err, &late) || !slices.Equal(late.Parts, c.late) {
					t.Errorf("error %v, want late %v", err, c.late)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				for i, h := range b.Health() {
					if !c.stuck[i] && h.State != Stopped {
						t.Errorf("%s was not stuck and is %s", h.Name, h.State)
					}
				}
				close(release)
				synctest.Wait()
			})
		})
	}
}

func TestStopDoesNotWaitForABackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, agent.Part{Name: "p", Run: func(context.Context) error { return errors.New("fault") }})
		time.Sleep(time.Minute)
		synctest.Wait()
		began := time.Now()
		if err := b.stop(); err != nil || time.Since(began) != 0 {
			t.Errorf("stop took %v: %v", time.Since(began), err)
		}
	})
}

func TestHealthzNamesThePartsThatDoNotRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ask := func(s *Supervisor) (int, string, []PartHealth) {
			w := httptest.NewRecorder()
			s.ServeHealthz(w, nil)
			var answer struct {
				Status string
				Parts  []PartHealth
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Errorf("%v: %s", err, w.Body)
			}
			return w.Code, answer.Status, answer.Parts
		}
		if code, status, _ := ask(New(slog.New(slog.DiscardHandler), new(stat.Registry))); code != 503 || status != "not started" {
			t.Errorf("before Run: %d %s", code, status)
		}
		fault := make(chan error)
		b := start(t, nil, well("metrics"), agent.Part{Name: "overlay", Run: func(ctx context.Context) error {
			agent.Ready(ctx)
			select {
			case err := <-fault:
				return err
			case <-ctx.Done():
				return nil
			}
		}})
		if code, status, parts := ask(b.Supervisor); code != 200 || status != "all 2 parts run" || len(parts) != 2 {
			t.Errorf("well: %d %s %v", code, status, parts)
		}
		fault <- errors.New("no netlink")
		synctest.Wait()
		code, status, parts := ask(b.Supervisor)
		if code != 503 || status != "not running: overlay (backing-off)" || parts[1].LastError != "no netlink" {
			t.Errorf("faulted: %d %s %+v", code, status, parts)
		}
	})
}
