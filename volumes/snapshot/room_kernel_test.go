//go:build kernel

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
	"github.com/fairlead-dev/fairlead/test/treetest"
)

const (
	childAt  = "FAIRLEAD_SNAPSHOT_KILL_AT"
	childDir = "FAIRLEAD_SNAPSHOT_DIR"
)

func TestMain(m *testing.M) {
	if at, err := strconv.Atoi(os.Getenv(childAt)); err == nil {
		if err := child(context.Background(), os.Getenv(childDir), at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child takes a snapshot and removes it again, and kills itself with -9 before the step of the given number.
func child(ctx context.Context, dir string, at int) error {
	r, n := NewRoom(dir+"/room"), 0
	r.step = func(string) {
		if n++; n == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	h, err := r.Take(ctx, Request{Volume: "v", Source: dir + "/volume", Purpose: Passed})
	if err != nil {
		return err
	}
	return r.Drop(ctx, h)
}

func TestKilledAtAnyStepOfASnapshot(t *testing.T) {
	for name, fs := range map[string]func(*testing.T) string{
		"copy": func(t *testing.T) string { hosttest.Root(t); return volume(t, hosttest.Dir(t)) },
		"reflink": func(t *testing.T) string {
			return volume(t, hosttest.XFS(t))
		},
		"btrfs": func(t *testing.T) string {
			dir := hosttest.Btrfs(t)
			check(t, exec.CommandContext(t.Context(), "btrfs", "subvolume", "create", dir+"/volume").Run())
			treetest.Make(t, dir+"/volume")
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fs(t)
			for at := 1; ; at++ {
				c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
				c.Env = append(os.Environ(), childAt+"="+strconv.Itoa(at), childDir+"="+dir)
				out, err := c.CombinedOutput()
				var exit *exec.ExitError
				again := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
				if err != nil && !again {
					t.Fatalf("%v\n%s", err, out)
				}
				r := NewRoom(dir + "/room")
				_, err = r.Sweep(t.Context())
				check(t, err)
				if left, err := os.ReadDir(dir + "/room"); err != nil || len(left) > 0 {
					t.Fatalf("killed before step %d: left are %v (%v)", at, left, err)
				}
				h, err := r.Take(t.Context(), Request{Volume: "v", Source: dir + "/volume", Purpose: Kept})
				check(t, err)
				if h.Driver != name {
					t.Fatalf("the driver is %s", h.Driver)
				}
				if diff, err := treetest.Compare(dir+"/volume", h.Path); err != nil || len(diff) > 0 {
					t.Fatalf("(%v) %s", err, strings.Join(diff, "\n"))
				}
				check(t, r.Drop(t.Context(), h))
				if !again {
					t.Logf("%d steps", at-1)
					break
				}
			}
		})
	}
}

func TestWhatIsHeldOrKeptIsNotSwept(t *testing.T) {
	hosttest.Root(t)
	dir := volume(t, hosttest.Dir(t))
	r := NewRoom(dir + "/room")
	held, err := r.Take(t.Context(), Request{Volume: "v", Source: dir + "/volume", Purpose: Passed})
	check(t, err)
	kept, err := r.Take(t.Context(), Request{Volume: "v", Source: dir + "/volume", Purpose: Kept})
	check(t, err, kept.Release())
	swept, err := NewRoom(dir + "/room").Sweep(t.Context())
	if err != nil || len(swept) > 0 {
		t.Errorf("swept %v (%v)", swept, err)
	}
	if err := r.Remove(t.Context(), held.ID); !errors.Is(err, ErrHeld) {
		t.Errorf("removed what is held: %v", err)
	}
	check(t, held.Release())
	swept, err = r.Sweep(t.Context())
	if err != nil || len(swept) != 1 || swept[0] != string(held.ID) {
		t.Errorf("swept %v (%v), want %s", swept, err, held.ID)
	}
	if list, err := r.List(); err != nil || len(list) != 1 || list[0].ID != kept.ID {
		t.Errorf("listed are %+v (%v)", list, err)
	}
	check(t, r.Remove(t.Context(), kept.ID))
	if err := r.Remove(t.Context(), kept.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestFailedSnapshotLeavesNothing(t *testing.T) {
	hosttest.Root(t)
	dir := volume(t, hosttest.Dir(t))
	r := NewRoom(dir + "/room")
	ctx, cancel := context.WithCancel(t.Context())
	r.step = func(at string) {
		if at == "take" {
			cancel()
		}
	}
	if _, err := r.Take(ctx, Request{Volume: "v", Source: dir + "/volume", Driver: Copy()}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled snapshot: %v", err)
	}
	if left, err := os.ReadDir(dir + "/room"); err != nil || len(left) > 0 {
		t.Errorf("left are %v (%v)", left, err)
	}
}

func volume(t *testing.T, dir string) string {
	t.Helper()
	check(t, os.Mkdir(dir+"/volume", 0o755))
	treetest.Make(t, dir+"/volume")
	return dir
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
