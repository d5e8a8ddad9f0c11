//go:build kernel

package logship

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// realInventory follows that runtime alone.
func realInventory(t *testing.T, socket string) *container.Inventory {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	v, err := container.New(container.Config{Run: t.TempDir(), Sockets: []string{socket}},
		container.Deps{Host: host.Root{Proc: "/proc", Sys: "/sys"}, Log: log, Stat: new(stat.Registry)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- v.Run(agent.WithReady(ctx, sync.OnceFunc(func() { close(ready) })))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-ready
	eventually(t, "the runtime answers", func() bool {
		all := v.Snapshot().Runtimes
		return len(all) > 0 && !slices.ContainsFunc(all, func(r container.RuntimeState) bool { return !r.Answered })
	})
	return v
}

func docker(t *testing.T, d *daemons.APIDaemon, args ...string) string {
	t.Helper()
	out, err := d.Client(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestTheReaperKeepsTheUnreadLogOfARealContainerAndClearsWhatIsAcknowledged(t *testing.T) {
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	r := sinktest.Listen(t, "")
	r.Stop()
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "far", Type: "syslog", Address: "tcp://" + r.Addr}}}, inv)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	st, err := state.Open(filepath.Join(dir, "reaper"), log)
	if err != nil {
		t.Fatal(err)
	}
	reaper, err := reap.New(reap.Config{Grace: 300 * time.Millisecond, Quarantine: time.Hour}, reap.Deps{Log: log, Stats: new(stat.Registry), State: st,
		Root: host.Root{Proc: "/proc", Sys: "/sys"}, Inventory: inv, Owners: map[string]reap.Owner{"logship": s}, Busy: s.Busy})
	if err != nil {
		t.Fatal(err)
	}
	id := docker(t, d, "run", "-d", "--network", "none", "bb", "sh", "-c", "for i in 0 1 2; do echo line $i; done; sleep 600")
	eventually(t, "its log is read", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size > 200 && s.sink(0).Failures > 0 })
	docker(t, d, "rm", "-f", id)
	// verdict gives what the reaper says of the pin after its grace time.
	verdict := func(want reap.Why) (out reap.Verdict) {
		t.Helper()
		eventually(t, "the reaper finds the pin "+string(want), func() bool {
			f, err := reaper.Orphans(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range f.Verdicts {
				if v.Resource.Claim.ID == container.ID(id) && !strings.HasPrefix(v.Resource.ID, placesPrefix) {
					out = v
				}
			}
			return out.Why == want
		})
		return out
	}
	v := verdict(reap.Busy)
	pin := v.Resource.ID
	if done, err := reaper.Clean(t.Context(), nil, true); err != nil || len(done) > 0 {
		t.Fatalf("clean did %v, %v", done, err)
	}
	if _, err := os.Stat(pin); err != nil {
		t.Fatalf("the unread log is gone: %v", err)
	}
	// As after a kill between the acknowledgement and the removal of the link.
	if err := os.Link(pin, pin+".test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(pin + ".test") }) // renamed, when all is well
	back := sinktest.Listen(t, r.Addr)
	if lost, doubled, what := tally(back.Wait(3), 3); lost+doubled > 0 {
		t.Fatal(what)
	}
	eventually(t, "the agent lets go", func() bool { _, err := os.Stat(pin); return os.IsNotExist(err) && len(s.Streams()) == 0 })
	if err := os.Rename(pin+".test", pin); err != nil {
		t.Fatal(err)
	}
	v = verdict(reap.Orphan)
	if !strings.Contains(strings.Join(v.Evidence, "\n"), "every sink had acknowledged") {
		t.Errorf("evidence %q", v.Evidence)
	}
	done, err := reaper.Clean(t.Context(), nil, true)
	if err != nil || len(done) != 1 || done[0].Error != "" {
		t.Fatalf("clean did %+v, %v", done, err)
	}
	if _, err := os.Stat(pin); !os.IsNotExist(err) {
		t.Errorf("the pin is still there: %v", err)
	}
}

func TestARealDockerThatKeepsOneFileLosesNothingThatIsNotReported(t *testing.T) {
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	copied := filepath.Join(dir, "copy")
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: copied}}}, inv)
	const n, limit = 60_000, 10_000
	// What it writes is far more than the file has room for, as fast as a shell can; then it goes slowly.
	script := `i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo line 60000; sleep 600`
	id := docker(t, d, "run", "-d", "--network", "none", "--log-opt", "max-size=10k", "--log-opt", "max-file=1", "bb", "sh", "-c", script)
	defer docker(t, d, "rm", "-f", id)
	eventually(t, "the last line", func() bool {
		got := lines(copied)
		return len(got) > 0 && strings.HasSuffix(got[len(got)-1], "line 60000") && s.sink(0).Lag == 0
	})
	got := numbers(lines(copied))
	if sorted := slices.IsSorted(got); !sorted || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Error("lines are doubled or out of order")
	}
	// Docker leaves out a time's last zeros. A file that nobody saw has at least limit bytes, and at most a line more; of
	// one that somebody saw nothing is lost. What came and went before the log was found and watched, nobody can know of.
	missing, k := int64(n+1-len(got)), s.sink(0)
	here, watched := map[int]bool{}, 0
	for k, i := range got {
		if here[i] = true; watched == 0 && k > 0 && i > got[k-1]+1 {
			watched = i
		}
	}
	least, most, longest := int64(0), int64(0), int64(0)
	for i := range n + 1 {
		size := func(stamp string) int64 {
			return int64(len(fmt.Sprintf(`{"log":"line %d\n","stream":"stdout","time":"%s"}`+"\n", i, stamp)))
		}
		if !here[i] {
			most += size("2026-11-21T09:20:00.123456789Z")
		}
		if !here[i] && i > watched {
			least += size("2026-11-21T09:20:00Z")
		}
		longest = max(longest, size("2026-11-21T09:20:00.123456789Z"))
	}
	t.Logf("%d of %d lines did not arrive, after line %d at least %d bytes, in all at most %d; at least %d bytes and %d whole files reported", missing, n+1, watched, least, most, k.Lost, k.Whole)
	if int64(k.Lost) > most || int64(k.Lost) != int64(k.Whole)*limit {
		t.Errorf("%d lines are missing, at most %d bytes; reported: at least %d bytes, %d whole files", missing, most, k.Lost, k.Whole)
	}
	// Of files that came and went while the kernel's queue was full nothing can be known: then there is no bound below.
	if lowest := least * limit / (limit + longest); s.overflows.Load() == 0 && int64(k.Lost) < lowest {
		t.Errorf("%d lines are missing, at least %d bytes, and only %d are reported", missing, lowest, k.Lost)
	}
}
