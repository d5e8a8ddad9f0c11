package detect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	agentstat "github.com/fairlead-dev/fairlead/agent/stat"
	agentstate "github.com/fairlead-dev/fairlead/agent/state"
)

var pod = strings.Repeat("0a", 32)

// leased makes the directory of a network as host-local leaves it.
func leased(t *testing.T) (leases, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"bridge/10.4.0.2":           "default-gone\r\neth0",
		"bridge/10.4.0.3":           "default-living\r\neth0",
		"bridge/10.4.0.4":           pod + "\r\neth0",
		"bridge/10.4.0.5":           "cnitool-77\r\neth0",
		"bridge/10.4.0.6":           "",
		"bridge/fd00::7":            "default-gone", // as host-local once wrote it
		"bridge/lock":               "",
		"bridge/last_reserved_ip.0": "10.4.0.6",
		"stray":                     "default-gone\r\neth0",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return leases{Host{Leases: []string{dir, filepath.Join(dir, "absent")}}}, dir
}

func TestLeasesOfHostLocalNameTheirContainers(t *testing.T) {
	t.Parallel()
	l, dir := leased(t)
	have, err := l.Owned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range have {
		if r.Kind != reap.Lease || r.Dir != r.ID || r.Since.IsZero() || r.Room != filepath.Join(dir, quarantineName) {
			t.Errorf("%+v", r)
		}
		got = append(got, fmt.Sprintf("%s %s%s: %s", strings.TrimPrefix(r.ID, dir), r.Claim.CNI, r.ReportOnly, strings.Join(r.Evidence, "; ")))
	}
	want := []string{
		"/bridge/10.4.0.2 default-gone: host-local's lease of 10.4.0.2 in network bridge; given to default-gone for eth0",
		"/bridge/10.4.0.3 default-living: host-local's lease of 10.4.0.3 in network bridge; given to default-living for eth0",
		"/bridge/10.4.0.4 " + pod + ": host-local's lease of 10.4.0.4 in network bridge; given to " + pod + " for eth0",
		"/bridge/10.4.0.5 cnitool-77: host-local's lease of 10.4.0.5 in network bridge; given to cnitool-77 for eth0",
		"/bridge/10.4.0.6 the lease names no container, so nothing tells whose it was: host-local's lease of 10.4.0.6 in network bridge",
		"/bridge/fd00::7 default-gone: host-local's lease of fd00::7 in network bridge; given to default-gone",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLeaseThatIsLockedOrAnothersByNowIsNotTaken(t *testing.T) {
	t.Parallel()
	l, dir := leased(t)
	have, err := l.Owned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := have[0]
	lock, err := os.Open(filepath.Join(dir, "bridge/lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Hold(r); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("while host-local is at work: %v", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	free, err := l.Hold(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("host-local can work meanwhile: %v", err)
	}
	if err := free(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.ID, []byte("default-heir\r\neth0"), 0o600); err != nil { // the same inode, as it may happen
		t.Fatal(err)
	}
	if _, err := l.Hold(r); err == nil || !strings.Contains(err.Error(), "is default-heir's by now") {
		t.Errorf("another's: %v", err)
	}
	if err := os.Remove(r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Hold(r); err == nil || !strings.Contains(err.Error(), "has gone") {
		t.Errorf("gone: %v", err)
	}
	if err := l.Release(t.Context(), r); err != nil {
		t.Errorf("release of what is gone: %v", err)
	}
}

// living is an inventory with one container.
type living struct{}

func (living) Refresh(context.Context) *container.Snapshot {
	return &container.Snapshot{
		At:         time.Now(),
		Containers: []container.Container{{ID: "living", Runtime: "containerd", Namespace: "default", State: container.Running}},
		Runtimes:   []container.RuntimeState{{Name: "containerd", Socket: "/run/c.sock", Answered: true, Asked: time.Now()}},
	}
}

func TestLeaseOfTheDeadIsCleanedAndBroughtBack(t *testing.T) {
	t.Parallel()
	l, dir := leased(t)
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		st, err := agentstate.Open(t.TempDir(), log)
		if err != nil {
			t.Fatal(err)
		}
		cfg := reap.DefaultConfig()
		r, err := reap.New(cfg, reap.Deps{Log: log, Stats: &agentstat.Registry{}, State: st, Root: host.DefaultRoot(), Inventory: living{}, Owners: map[string]reap.Owner{"leases": l}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Orphans(t.Context())
		time.Sleep(cfg.Grace)
		lock, err2 := os.Open(filepath.Join(dir, "bridge/lock"))
		if err := errors.Join(err, err2, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)); err != nil {
			t.Fatal(err)
		}
		done, err := r.Clean(t.Context(), nil, true)
		if err := errors.Join(err, lock.Close()); err != nil || len(done) != 3 {
			t.Fatalf("%+v, %v", done, err)
		}
		for _, o := range done {
			if o.Result != reap.Failed || !strings.Contains(o.Error, "which host-local may hold") {
				t.Errorf("while host-local is at work: %s: %s %s", o.Resource.ID, o.Result, o.Error)
			}
		}
		if done, err = r.Clean(t.Context(), nil, true); err != nil {
			t.Fatal(err)
		}
		for _, o := range done {
			if o.Result != reap.Quarantined {
				t.Errorf("%s: %s %s", o.Resource.ID, o.Result, o.Error)
			}
		}
		if left, want := names(t, dir+"/bridge"), []string{"10.4.0.3", "10.4.0.5", "10.4.0.6", "last_reserved_ip.0", "lock"}; !slices.Equal(left, want) {
			t.Errorf("left are %v, want %v", left, want)
		}
		if moved := names(t, filepath.Join(dir, quarantineName)); len(moved) != 3 {
			t.Errorf("in quarantine are %v", moved)
		}
		for _, o := range done {
			if _, err := r.Undo(o.Ref); err != nil {
				t.Errorf("undo %s: %v", o.Resource.ID, err)
			}
		}
		if b, err := os.ReadFile(dir + "/bridge/10.4.0.2"); err != nil || string(b) != "default-gone\r\neth0" {
			t.Errorf("back is %q, %v", b, err)
		}
		audit, err := os.ReadFile(st.File("audit.jsonl"))
		if err != nil || !strings.Contains(string(audit), "given to default-gone for eth0") {
			t.Errorf("the audit log does not say whose it was: %v\n%s", err, audit)
		}
	})
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
