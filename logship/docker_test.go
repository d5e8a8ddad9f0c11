//go:build kernel

package logship

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
		return len(all) == 1 && all[0].Answered
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

func TestContainersThatWriteTenLinesAndVanishAreReadToTheLastLine(t *testing.T) {
	containers := bounded(15, 200)
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	dir := t.TempDir()
	out := filepath.Join(dir, "copy")
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, inv)
	work := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range work {
				_, err := d.Client(t.Context(), "run", "--rm", "--network", "none", "--name", fmt.Sprintf("job%d", i), "--label", fmt.Sprintf("job=%d", i),
					"bb", "sh", "-c", fmt.Sprintf("for k in 0 1 2 3 4 5 6 7 8 9; do echo job %d line $((%d0 + k)); done", i, i))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range containers {
		work <- i
	}
	close(work)
	workers.Wait()
	n := containers * 10
	defer func() {
		if t.Failed() {
			lost, doubled, what := tally(lines(out), n)
			t.Logf("%d lost, %d doubled of %d: %s; %+v", lost, doubled, n, what, s.Streams())
		}
	}()
	eventually(t, "all lines", func() bool { return len(lines(out)) >= n })
	eventually(t, "all streams are closed", func() bool { return len(s.Streams()) == 0 })
	got := lines(out)
	if lost, doubled, _ := tally(got, n); lost+doubled > 0 {
		t.Error("not each line once")
	}
	for _, l := range got {
		i := strings.Index(l, "job ")
		if i < 0 || !strings.Contains(l, " job"+strings.Fields(l[i:])[1]+" ") {
			t.Errorf("a line without its container's name: %q", l)
			break
		}
	}
}
