//go:build kernel

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

func TestWhatContainerdLeavesAfterItHasLostItsRecordsIsClearedAndTheLivingIsKept(t *testing.T) {
	w := aWorld(t)
	ctx := t.Context()
	dead, err := w.start(ctx)
	must(t, err)
	living, err := w.start(ctx)
	must(t, err)
	_, err = w.settled(ctx)
	must(t, err)

	w.containerd.Kill()
	must(t, w.answers(ctx, false), w.killShim(dead), w.killInit(dead))
	must(t, os.Remove(filepath.Join(w.containerd.Root, "io.containerd.metadata.v1.bolt/meta.db")))
	without(t, "runc") // as while it is being upgraded: containerd cannot clear what runc has made
	must(t, w.containerd.Start(ctx), w.answers(ctx, true))
	dead.gone = true
	verdicts, err := w.settled(ctx)
	must(t, err)
	t.Logf("after the loss of all records:\n%s", brief(verdicts))
	sweep := decided(verdicts, reap.Sweep)
	for _, kind := range []reap.Kind{reap.Attachment, reap.NetNS, reap.Cgroup, reap.State} {
		if !slices.ContainsFunc(sweep, func(v reap.Verdict) bool { return w.boxOf(v) == dead && v.Resource.Kind == kind }) {
			t.Errorf("%s of the dead container is not listed", kind)
		}
	}
	done, err := w.reaper.Clean(ctx, nil, true)
	must(t, err)
	var moved []reap.Outcome
	for _, o := range done {
		t.Logf("%s %s %s: %s %s", o.Ref, o.Resource.Kind, o.Resource.ID, o.Result, o.Error)
		if b := w.boxOf(o.Verdict); b != dead || o.Result != reap.Removed && o.Result != reap.Quarantined {
			t.Errorf("%s %s of %v: %s %s", o.Resource.Kind, o.Resource.ID, b, o.Result, o.Error)
		}
		if _, err := os.Lstat(o.Resource.ID); filepath.IsAbs(o.Resource.ID) && o.Resource.Kind != reap.Cgroup && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", o.Resource.ID, err)
		}
		if o.Result == reap.Quarantined {
			moved = append(moved, o)
		}
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/default/" + dead.id); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	if _, alive := host.DefaultRoot().Process(living.pid); !alive || w.inUse(living) == "" {
		t.Errorf("the living container lost its process or its network (%q)", w.inUse(living))
	}
	verdicts, err = w.settled(ctx)
	must(t, err)
	alive := slices.DeleteFunc(slices.Clone(verdicts), func(v reap.Verdict) bool { return v.Why != reap.Alive })
	if len(alive) < 4 || len(alive) != len(verdicts) {
		t.Errorf("of the living container:\n%s", brief(verdicts))
	}

	if len(moved) == 0 {
		t.Fatal("nothing was quarantined")
	}
	back, err := w.reaper.Undo(moved[0].Ref)
	must(t, err)
	if _, err := os.Stat(filepath.Join(back.From, "state.json")); err != nil {
		t.Errorf("undo did not bring runc's state back: %v", err)
	}
}

// without hides a program from what this test starts.
func without(t *testing.T, hidden string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"env", "containerd", "containerd-shim-runc-v2", "ctr", "cat", "umount"} {
		path, err := exec.LookPath(name)
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	t.Setenv("PATH", dir)
	if path, err := exec.LookPath(hidden); err == nil {
		t.Fatalf("%s is still found: %s", hidden, path)
	}
}

func TestShimThatNobodyKnowsIsEndedWhenItMindsNothing(t *testing.T) {
	w := aWorld(t)
	ctx := t.Context()
	b, err := w.start(ctx)
	must(t, err)
	_, err = w.settled(ctx)
	must(t, err)
	w.containerd.Kill()
	must(t, w.answers(ctx, false), w.killInit(b))
	shim, err := w.shimOf(b)
	must(t, err)
	// As people do who want a broken container to go away: containerd then has no way to its shim.
	bundle := filepath.Join(w.containerd.State, "io.containerd.runtime.v2.task/default", b.id)
	must(t, unix.Unmount(filepath.Join(bundle, "rootfs"), 0), os.RemoveAll(bundle))
	must(t, w.containerd.Start(ctx), w.answers(ctx, true), w.forget(ctx, b))
	verdicts, err := w.settled(ctx)
	must(t, err)
	if !slices.ContainsFunc(decided(verdicts, reap.Sweep), func(v reap.Verdict) bool { return v.Resource.Kind == reap.Shim }) {
		t.Fatalf("the shim is not listed:\n%s", brief(verdicts))
	}
	done, err := w.reaper.Clean(ctx, nil, true)
	must(t, err)
	for _, o := range done {
		t.Logf("%s %s: %s %s", o.Resource.Kind, o.Resource.ID, o.Result, o.Error)
		if o.Result != reap.Removed && o.Result != reap.Quarantined {
			t.Errorf("%s %s: %s %s", o.Resource.Kind, o.Resource.ID, o.Result, o.Error)
		}
	}
	if _, alive := host.DefaultRoot().Process(shim); alive {
		t.Error("the shim lives on")
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/default/" + b.id); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}
