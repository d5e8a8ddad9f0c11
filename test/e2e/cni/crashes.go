package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

var crashes = []Case{
	{Name: "kill-add", Says: "after kill -9 of the plugin anywhere in ADD, DEL leaves nothing, and the container can be added again", Run: killAdd},
	{Name: "kill-add-no-del", Says: "after kill -9 of the plugin anywhere in ADD nothing is left 30 s after the namespace is gone, without DEL", Run: killAddNoDel},
	{Name: "kill-del", Says: "after kill -9 of the plugin anywhere in DEL, a second DEL leaves nothing", Run: killDel},
	{Name: "kill-daemon", Says: "after kill -9 of the daemon the container is reached, before and after its restart, and DEL leaves nothing", Daemon: true, Run: leavesNothing(3*time.Second, killDaemon)},
	{Name: "no-del", Says: "30 s after a namespace is gone nothing is left, though DEL is never called", Run: noDel},
	{Name: "parallel", Says: "64 ADDs at once give 64 addresses; after 64 DELs at once the host is as before", Run: func(ctx context.Context, w *World) error { return parallel(ctx, w, 64) }},
	{Name: "parallel-same", Says: "ADDs and DELs of one container at once leave nothing after a last DEL", Run: leavesNothing(5*time.Second, parallelSame)},
}

// kills is how often a crash case kills, spread over the time that a call takes.
const kills = 20

func killAdd(ctx context.Context, w *World) error {
	return killing(ctx, w, func(b *Box, after time.Duration) error {
		c := To(b)
		c.Kill = after
		_, _ = w.Add(ctx, c) // killed, or not any more
		if err := w.Del(ctx, To(b)); err != nil {
			return err
		}
		if _, err := w.Add(ctx, To(b)); err != nil {
			return fmt.Errorf("again: %w", err)
		}
		return w.Del(ctx, To(b))
	}, 3*time.Second)
}

func killAddNoDel(ctx context.Context, w *World) error {
	return killing(ctx, w, func(b *Box, after time.Duration) error {
		c := To(b)
		c.Kill = after
		_, _ = w.Add(ctx, c)
		return nil
	}, w.Patience)
}

func killDel(ctx context.Context, w *World) error {
	return killing(ctx, w, func(b *Box, after time.Duration) error {
		if _, err := w.Add(ctx, To(b)); err != nil {
			return err
		}
		c := To(b)
		c.Kill = after
		_ = w.Del(ctx, c)
		return w.Del(ctx, To(b))
	}, 3*time.Second)
}

// killing measures how long an ADD takes here, and does one kill after each of so many equal parts of it. Afterwards
// the namespaces go, and the host must be as before.
func killing(ctx context.Context, w *World, one func(*Box, time.Duration) error, within time.Duration) error {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	b, err := w.Box("measure")
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := w.Add(ctx, To(b)); err != nil {
		return err
	}
	takes := time.Since(began)
	if err := w.Del(ctx, To(b)); err != nil {
		return err
	}
	for i := range kills {
		b, err := w.Box(fmt.Sprint("killed", i))
		if err != nil {
			return err
		}
		after := takes * time.Duration(i+1) / kills
		if err := one(b, after); err != nil {
			return fmt.Errorf("killed after %s: %w", after, err)
		}
		b.End()
	}
	return w.Same(before, within)
}

func killDaemon(ctx context.Context, w *World) error {
	b, addr, err := w.addressed(ctx, "a")
	if err != nil {
		return err
	}
	if err := w.crash(); err != nil {
		return err
	}
	if err := w.reaches(addr); err != nil {
		return fmt.Errorf("while the daemon is dead: %w", err)
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	if err := w.reaches(addr); err != nil {
		return fmt.Errorf("after its restart: %w", err)
	}
	if err := w.check(ctx, To(b)); err != nil {
		return fmt.Errorf("after its restart: %w", err)
	}
	return w.Del(ctx, To(b))
}

func noDel(ctx context.Context, w *World) error {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	for i := range 5 {
		b, err := w.attached(ctx, fmt.Sprint("a", i))
		if err != nil {
			return err
		}
		b.End()
	}
	return w.Same(before, w.Patience)
}

func parallel(ctx context.Context, w *World, n int) error {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	boxes, addrs, errs := make([]*Box, n), make([]netip.Addr, n), make([]error, n)
	for i := range boxes {
		if boxes[i], err = w.Box(fmt.Sprint("p", i)); err != nil {
			return err
		}
	}
	together(n, func(i int) {
		res, err := w.Add(ctx, To(boxes[i]))
		if err == nil {
			addrs[i], err = addressOf(res)
		}
		errs[i] = err
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	held := map[netip.Addr]int{}
	for i, a := range addrs {
		if other, twice := held[a]; twice {
			return fmt.Errorf("%s is given to containers %d and %d", a, other, i)
		}
		held[a] = i
	}
	together(n, func(i int) { errs[i] = w.Del(ctx, To(boxes[i])) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return w.Same(before, 10*time.Second)
}

func together(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

func parallelSame(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	// Who wins is open; what is left in the end is not.
	together(16, func(i int) {
		if i%2 == 0 {
			_, _ = w.Add(ctx, To(b))
		} else {
			_ = w.Del(ctx, To(b))
		}
	})
	return w.Del(ctx, To(b))
}
