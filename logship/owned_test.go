package logship

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// judge gives the reaper's verdicts on what l has, after docker has listed no container twice, a grace time apart.
func judge(t *testing.T, l *Logship) map[string]reap.Verdict {
	t.Helper()
	have, err := l.Owned(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]reap.Verdict{}
	var record reap.Record
	begin := time.Now().Add(-time.Hour)
	for i := range 2 {
		now := begin.Add(time.Duration(i) * 20 * time.Minute)
		seen := &container.Snapshot{Runtimes: []container.RuntimeState{{Name: "docker", Socket: "/d", Answered: true, Asked: now, Since: begin.Add(-time.Hour)}}}
		var verdicts []reap.Verdict
		verdicts, record = reap.Plan(reap.Input{Seen: seen, Have: have, At: now.Add(-time.Second), Busy: l.Busy(), Before: record, Boot: "b", Now: now,
			Rules: reap.Rules{Grace: 10 * time.Minute, Busy: time.Hour}})
		for _, v := range verdicts {
			out[v.Resource.ID] = v
		}
	}
	return out
}

// theOne gives the verdict on the only pin.
func theOne(t *testing.T, l *Logship) (pin reap.Verdict) {
	t.Helper()
	for id, v := range judge(t, l) {
		if !strings.HasPrefix(id, placesPrefix) {
			if pin.Ref != "" {
				t.Fatalf("two pins: %s and %s", pin.Resource.ID, id)
			}
			pin = v
		}
	}
	return pin
}

// buried runs an agent whose only sink is down, with a container that wrote three lines and was removed with its log.
func buried(t *testing.T, dir string) (c container.Container, cfg Config, s ship) {
	t.Helper()
	c = container.Container{ID: "dead", Name: "job", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: filepath.Join(dir, "c/0.log"), Format: container.CRI}}
	writeFile(t, c.Log.Path, cri("line 0")+cri("line 1")+cri("line 2"))
	r := sinktest.Listen(t, "")
	r.Stop()
	cfg = Config{Sinks: []SinkConfig{{Name: "far", Type: "syslog", Address: "tcp://" + r.Addr}}}
	inv := newInventory(c)
	s = run(t, dir, cfg, inv)
	eventually(t, "the sink is tried", func() bool { return s.sink(0).Failures > 0 })
	if err := os.RemoveAll(filepath.Dir(c.Log.Path)); err != nil {
		t.Fatal(err)
	}
	inv.publish(nil, []container.Tombstone{{Container: c}})
	eventually(t, "the end is known", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Ended })
	return c, cfg, s
}

func TestWhatASinkHasNotTakenOfAContainerThatIsGoneIsKeptByTheReaper(t *testing.T) {
	t.Parallel()
	_, cfg, s := buried(t, t.TempDir())
	v := theOne(t, s.Logship)
	if v.Why != reap.Busy || v.Owner != "docker dead" {
		t.Errorf("verdict %s, %s: %s, want busy of docker dead", v.Why, v.Owner, v.Reason)
	}
	if want := "sink far has not acknowledged 141 bytes"; !strings.Contains(strings.Join(v.Evidence, "\n"), want) {
		t.Errorf("evidence %q, want %s", v.Evidence, want)
	}
	if v.Resource.ReportOnly == "" {
		t.Error("it would be swept once the reaper is tired of waiting")
	}
	if err := s.Release(context.Background(), v.Resource); err == nil {
		t.Error("it was released")
	}
	// A crash after the acknowledgement, before the link was removed, leaves it.
	pin, saved := v.Resource.ID, v.Resource.ID+".test"
	if err := os.Link(pin, saved); err != nil {
		t.Fatal(err)
	}
	back := sinktest.Listen(t, strings.TrimPrefix(cfg.Sinks[0].Address, "tcp://"))
	if lost, _, what := tally(back.Wait(3), 3); lost > 0 {
		t.Fatal(what)
	}
	eventually(t, "the stream is closed", func() bool { return len(s.Streams()) == 0 })
	eventually(t, "the agent lets go of the pin itself", func() bool { _, err := os.Stat(pin); return os.IsNotExist(err) })
	if err := os.Rename(saved, pin); err != nil {
		t.Fatal(err)
	}
	if v = theOne(t, s.Logship); v.Decision != reap.Sweep || len(s.Busy()) > 0 {
		t.Fatalf("verdict %s: %s; busy: %v", v.Decision, v.Reason, s.Busy())
	}
	if err := s.Release(context.Background(), v.Resource); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(pin); !os.IsNotExist(err) {
		t.Errorf("the pin is still there: %v", err)
	}
	if err := s.Release(context.Background(), v.Resource); err != nil {
		t.Errorf("released twice: %v", err)
	}
}

func TestWhatNoSinkWaitsForIsClearedWhenItsContainerIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, cfg, s := buried(t, dir)
	s.stop()
	if _, err := s.Owned(context.Background()); err == nil {
		t.Error("a shipper that does not run said what it owns")
	}
	cfg.Sinks = nil
	s = run(t, dir, cfg, newInventory())
	eventually(t, "it runs", func() bool { _, err := s.Owned(context.Background()); return err == nil })
	verdicts := judge(t, s.Logship)
	if len(verdicts) != 2 {
		t.Errorf("%d verdicts, want one on the pin and one on its positions", len(verdicts))
	}
	for id, v := range verdicts {
		if v.Decision != reap.Sweep {
			t.Errorf("%s: %s, %s", id, v.Why, v.Reason)
		}
		if err := s.Release(context.Background(), v.Resource); err != nil {
			t.Error(err)
		}
	}
	if left := judge(t, s.Logship); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAPinWhosePositionsAreLostIsNeverCleared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, cfg, s := buried(t, dir)
	s.stop()
	for _, name := range []string{"positions.json", "positions.log"} {
		if err := os.Remove(filepath.Join(dir, "state", name)); err != nil {
			t.Fatal(err)
		}
	}
	s = run(t, dir, cfg, newInventory())
	eventually(t, "it runs", func() bool { _, err := s.Owned(context.Background()); return err == nil })
	v := theOne(t, s.Logship)
	if v.Decision != reap.Report || !strings.Contains(v.Reason, "lost") || v.Owner != "docker dead" {
		t.Errorf("verdict %s of %s: %s", v.Decision, v.Owner, v.Reason)
	}
	if err := s.Release(context.Background(), v.Resource); err == nil {
		t.Error("it was released")
	}
	if _, err := os.Stat(v.Resource.ID); err != nil {
		t.Error(err)
	}
}
