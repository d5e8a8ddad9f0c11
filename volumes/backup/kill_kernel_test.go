//go:build kernel

package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/hosttest"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// The child runs one operation and kills itself with -9 before the step of the given number.
const (
	childDo   = "FAIRLEAD_BACKUP_CHILD"
	childAt   = "FAIRLEAD_BACKUP_KILL_AT"
	childID   = "FAIRLEAD_BACKUP_ID"
	childDir  = "FAIRLEAD_BACKUP_DIR"
	childRepo = "FAIRLEAD_BACKUP_REPOSITORY"
)

func TestMain(m *testing.M) {
	if do := os.Getenv(childDo); do != "" {
		if err := child(context.Background(), do); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(ctx context.Context, do string) error {
	at, err := strconv.ParseInt(os.Getenv(childAt), 10, 64)
	if err != nil {
		return err
	}
	var n atomic.Int64
	step = func(string) {
		if n.Add(1) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	dir, id := os.Getenv(childDir), ID(os.Getenv(childID))
	opts := Options{Name: "test", Path: os.Getenv(childRepo), Key: key, Work: dir + "/work", Node: "here"}
	if do == "create" {
		return Create(ctx, opts)
	}
	r, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	switch do {
	case "backup":
		root, err := tree.Root(dir + "/volume")
		if err != nil {
			return err
		}
		_, err = r.Backup(ctx, root, Source{Volume: "volume", Node: "here"}, "", nil)
		return err
	case "remove":
		return r.Remove(ctx, id)
	}
	_, err = r.Restore(ctx, id, dir+"/restored", nil)
	return err
}

// killed runs an operation in a child that is killed before step at; it answers false when the operation was done before.
func (b bench) killed(t *testing.T, do string, id ID, at int) bool {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	c.Env = append(os.Environ(), childDo+"="+do, childAt+"="+strconv.Itoa(at), childID+"="+string(id), childDir+"="+b.dir, childRepo+"="+b.opts.Path)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", do, err, out)
	}
	return false
}

func TestKilledAtAnyStepOfMakingARepository(t *testing.T) {
	hosttest.Root(t)
	for at := 1; ; at += hosttest.Stride() {
		dir := hosttest.Dir(t)
		b := bench{dir: dir, opts: Options{Name: "test", Path: dir + "/repository", Key: key, Work: dir + "/work"}}
		again := b.killed(t, "create", "", at)
		check(t, Create(t.Context(), b.opts))
		r, err := Open(t.Context(), b.opts)
		check(t, err, r.Close(t.Context()))
		if !again {
			t.Logf("%d steps", at-1)
			break
		}
	}
}

func TestKilledAtAnyStepOfABackup(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	first, err := b.backup(t, b.open(t))
	check(t, err)
	for at := 1; ; at += hosttest.Stride() {
		check(t, os.WriteFile(b.volume+"/new", fmt.Append(nil, "content ", at), 0o600))
		again := b.killed(t, "backup", "", at)
		r := b.open(t)
		list, err := r.List(t.Context())
		check(t, err)
		for _, m := range list {
			if _, err := r.Verify(t.Context(), m.ID, nil); err != nil {
				t.Errorf("killed before step %d: %v", at, err)
			}
		}
		if len(list) == 0 || list[0].ID != first.ID {
			t.Fatalf("killed before step %d: the catalogue has %+v", at, list)
		}
		for _, m := range list[1:] {
			check(t, r.Remove(t.Context(), m.ID))
		}
		next, err := b.backup(t, b.open(t))
		check(t, err)
		check(t, b.open(t).Remove(t.Context(), next.ID))
		if !again {
			t.Logf("%d steps", at-1)
			break
		}
	}
	_, err = b.open(t).Restore(t.Context(), first.ID, dir+"/restored", nil)
	check(t, err, os.Remove(b.volume+"/new"))
	touchRoot(t, b.volume)
	same(t, b.volume, dir+"/restored")
}

// touchRoot sets back the time that a test changed.
func touchRoot(t *testing.T, path string) {
	t.Helper()
	check(t, os.Chtimes(path, time.Time{}, time.Unix(1111111111, 222222222)))
}

func TestKilledAtAnyStepOfRemovingABackup(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	kept, err := b.backup(t, b.open(t))
	check(t, err)
	for at := 1; ; at += hosttest.Stride() {
		m, err := b.backup(t, b.open(t))
		check(t, err)
		again := b.killed(t, "remove", m.ID, at)
		r := b.open(t)
		if err := r.Remove(t.Context(), m.ID); err != nil && !errors.Is(err, ErrUnknown) {
			t.Fatalf("killed before step %d: %v", at, err)
		}
		_, err = b.open(t).Verify(t.Context(), kept.ID, nil)
		check(t, err)
		if !again {
			t.Logf("%d steps", at-1)
			break
		}
	}
}

func TestKilledAtAnyStepOfARestore(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	m, err := b.backup(t, b.open(t))
	check(t, err)
	for at := 1; ; at += hosttest.Stride() {
		again := b.killed(t, "restore", m.ID, at)
		if again {
			_, err := b.open(t).Restore(t.Context(), m.ID, dir+"/restored", nil)
			check(t, err)
		}
		same(t, b.volume, dir+"/restored")
		check(t, os.RemoveAll(dir+"/restored"))
		if !again {
			t.Logf("%d steps", at-1)
			break
		}
	}
}
