//go:build kernel

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	ended, err := apart(os.Args[1:]...)
	switch {
	case !ended:
		os.Exit(m.Run())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func aWorld(t *testing.T) *world {
	t.Helper()
	hosttest.Require(t, "containerd", "ctr", "runc", "busybox", "nsenter", "ping")
	w, err := newWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := os.ReadFile(w.logFile.Name())
			t.Logf("the agent said:\n%s", said)
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
		if left, err := hosttest.Left(w.prefix); err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	})
	return w
}

// ping asks a container again and again until end is called, which gives what was lost.
func ping(t *testing.T, addr string) (end func() string) {
	t.Helper()
	var said strings.Builder
	c := exec.Command("ping", "-i", "0.02", "-q", addr)
	c.Stdout = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		_ = c.Process.Signal(syscall.SIGINT)
		_ = c.Wait() // what it says is what counts
		return said.String()
	}
}

func decided(verdicts []reap.Verdict, d reap.Decision) (out []reap.Verdict) {
	return slices.DeleteFunc(slices.Clone(verdicts), func(v reap.Verdict) bool { return v.Decision != d })
}

func TestOfThreeContainersOnlyTheDeadOnesAreCleared(t *testing.T) {
	w := aWorld(t)
	ctx := t.Context()
	boxes := []*box{}
	for range 3 {
		b, err := w.start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, b)
	}
	one, two, three := boxes[0], boxes[1], boxes[2]
	packets := ping(t, two.addr)
	verdicts, err := w.settled(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if some := slices.DeleteFunc(slices.Clone(verdicts), func(v reap.Verdict) bool { return v.Why == reap.Owned }); len(some) > 0 {
		t.Fatalf("of living containers:\n%s", brief(some))
	}

	w.containerd.Kill()
	must(t, w.answers(ctx, false))
	must(t, w.killShim(one), w.killInit(one), w.killShim(three))
	verdicts, err = w.settled(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("while containerd is down:\n%s", brief(verdicts))
	if some := slices.DeleteFunc(slices.Clone(verdicts), func(v reap.Verdict) bool { return v.Decision == reap.Keep }); len(some) > 0 {
		t.Fatalf("while containerd is down:\n%s", brief(some))
	}
	i := slices.IndexFunc(verdicts, func(v reap.Verdict) bool { return v.Resource.Adrift })
	if i < 0 || w.boxOf(verdicts[i]) != three || !strings.Contains(verdicts[i].Reason, "alive, kept") || verdicts[i].Quiet() {
		t.Fatalf("the third is not reported as alive, kept:\n%s", brief(verdicts))
	}
	done, err := w.reaper.Clean(ctx, nil, true)
	if err != nil || slices.ContainsFunc(done, func(o reap.Outcome) bool { return strings.Contains(o.Resource.ID, w.prefix) }) {
		t.Fatalf("clean while containerd is down: %v, %v", done, err)
	}
	must(t, w.stop(), w.startAgent(ctx)) // a restart must not make a runtime that is down forgotten
	verdicts, err = w.settled(ctx)
	if err != nil || len(decided(verdicts, reap.Keep)) != len(verdicts) {
		t.Fatalf("after a restart of the agent, while containerd is down: %v\n%s", err, brief(verdicts))
	}

	must(t, w.containerd.Start(ctx), w.answers(ctx, true))
	three.alive = false // containerd itself ends it: a "dead shim"
	verdicts, err = w.settled(ctx)
	if err != nil || len(decided(verdicts, reap.Keep)) != len(verdicts) {
		t.Fatalf("their records are still there: %v\n%s", err, brief(verdicts))
	}
	must(t, w.forget(ctx, one), w.forget(ctx, three))
	verdicts, err = w.settled(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sweep := decided(verdicts, reap.Sweep)
	t.Logf("when containerd is back and the records are removed:\n%s", brief(verdicts))
	for _, b := range []*box{one, three} {
		for _, kind := range []reap.Kind{reap.Attachment, reap.NetNS} {
			if !slices.ContainsFunc(sweep, func(v reap.Verdict) bool {
				return w.boxOf(v) == b && v.Resource.Kind == kind && len(v.Evidence) > 1
			}) {
				t.Errorf("%s of %s is not listed with its evidence", kind, b.id)
			}
		}
	}
	if slices.ContainsFunc(sweep, func(v reap.Verdict) bool { return w.boxOf(v) == two }) {
		t.Fatalf("the second was to be swept:\n%s", brief(sweep))
	}
	done, err = w.reaper.Clean(ctx, nil, false)
	if err != nil || len(done) < len(sweep) || w.inUse(one) == "" {
		t.Fatalf("without --yes: %v, %v, %q", done, err, w.inUse(one))
	}
	done, err = w.reaper.Clean(ctx, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range done {
		t.Logf("%s %s %s: %s %s", o.Ref, o.Resource.Kind, o.Resource.ID, o.Result, o.Error)
		if o.Result != reap.Removed && o.Result != reap.Quarantined {
			t.Errorf("%s %s: %s %s", o.Resource.Kind, o.Resource.ID, o.Result, o.Error)
		}
	}
	for _, b := range []*box{one, three} {
		if left := w.inUse(b); left != "" {
			t.Errorf("of %s there is still %s", b.id, left)
		}
	}
	verdicts, err = w.settled(ctx)
	if err != nil || len(decided(verdicts, reap.Sweep))+len(decided(verdicts, reap.Report)) > 0 {
		t.Errorf("after clean: %v\n%s", err, brief(verdicts))
	}
	said := packets()
	t.Log(said)
	if !strings.Contains(said, " 0% packet loss") {
		t.Error("the second lost packets")
	}
	must(t, w.await(ctx, "the second runs", func(s *container.Snapshot) bool {
		c := w.find(s, two)
		return c != nil && c.State == container.Running && c.PID == two.pid
	}))
}

// inUse says what there is of a container's network.
func (w *world) inUse(b *box) string {
	var out []string
	if _, err := os.Stat(b.netns()); err == nil {
		out = append(out, b.netns())
	}
	for _, a := range w.overlay.Attachments() {
		if a.Key == b.key() {
			out = append(out, a.Addr.String())
		}
	}
	return strings.Join(out, " ")
}

func TestRealRoundsHaveNoWrongDeletion(t *testing.T) {
	w := aWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for range 2 {
		wrong, missed, err := w.round(ctx, newRand(seed))
		if err != nil || len(wrong)+len(missed) > 0 {
			t.Fatalf("seed %d: %v\nwrong: %s\nmissed: %s", seed, err, strings.Join(wrong, "\n"), strings.Join(missed, "\n"))
		}
		seed++
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// brief gives verdicts as lines.
func brief(verdicts []reap.Verdict) string {
	var b strings.Builder
	for _, v := range verdicts {
		fmt.Fprintf(&b, "%-10s %-7s %-10s %s: %s %q\n", v.Resource.Kind, v.Decision, v.Why, v.Resource.ID, v.Reason, v.Evidence)
	}
	return b.String()
}
