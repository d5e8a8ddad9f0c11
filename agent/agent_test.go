package agent

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPanicBecomesAnErrorWithItsStack(t *testing.T) {
	t.Parallel()
	err := Go(t.Context(), func(context.Context) error { panic("out of ropes") })
	var p *PanicError
	if !errors.As(err, &p) || err.Error() != "panic: out of ropes" {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(string(p.Stack), "TestPanicBecomesAnErrorWithItsStack") {
		t.Errorf("the stack does not show where:\n%s", p.Stack)
	}
	if err := Go(t.Context(), func(context.Context) error { panic(fs.ErrExist) }); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a panic with an error hides it: %v", err)
	}
}

func TestGoGivesWhatTheFunctionReturned(t *testing.T) {
	t.Parallel()
	if err := Go(t.Context(), func(context.Context) error { return fs.ErrExist }); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if err := Go(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestFirstFaultOfAGroupEndsItsSiblings(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context) error{
		"error":        func(context.Context) error { return errors.New("no netlink") },
		"panic":        func(context.Context) error { panic("no netlink") },
		"own deadline": func(context.Context) error { return context.DeadlineExceeded },
		"own cancel":   func(context.Context) error { return context.Canceled },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := Go(t.Context(), fail)
			g := NewGroup(t.Context())
			var ended atomic.Int32
			for range 3 {
				g.Go(func(ctx context.Context) error {
					<-ctx.Done()
					ended.Add(1)
					return ctx.Err() // the siblings' echo is not the fault
				})
			}
			g.Go(fail)
			if err := g.Wait(); err == nil || err.Error() != want.Error() || ended.Load() != 3 {
				t.Errorf("Wait gave %v with %d siblings ended, want %v with 3", err, ended.Load(), want)
			}
		})
	}
}

func TestGroupThatEndsWithItsParentHasNoFault(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	g := NewGroup(ctx)
	g.Go(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	cancel(errors.New("the operator stopped us"))
	if err := g.Wait(); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestGroupWaitsForEveryGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(t.Context())
		done := 0
		g.Go(func(context.Context) error { return nil })
		g.Go(func(context.Context) error { time.Sleep(time.Hour); done++; return nil })
		if err := g.Wait(); err != nil || done != 1 {
			t.Errorf("Wait gave %v, %d done", err, done)
		}
	})
}

func TestReadyReachesWhoeverAsked(t *testing.T) {
	t.Parallel()
	Ready(t.Context()) // nobody asked
	said := 0
	ctx, cancel := context.WithCancel(WithReady(t.Context(), func() { said++ }))
	defer cancel()
	Ready(ctx)
	Ready(ctx)
	if said != 2 {
		t.Errorf("ready was called %d times", said)
	}
}
