//go:build kernel

package logship

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestLinesGoOnWhileTheStateDirectoryIsFullAndPositionsAreSavedAfterwards(t *testing.T) {
	dir := hosttest.Tmpfs(t, "512k") // the state and the pins; logs and copies lie elsewhere
	logs := hosttest.Dir(t)
	log, out := filepath.Join(logs, "a.log"), filepath.Join(logs, "copy")
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}
	s := run(t, dir, cfg, newInventory())
	stop := pour(t, log)
	eventually(t, "lines flow", func() bool { return s.sink(0).Acked > 0 })
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	acked := s.sink(0).Acked
	time.Sleep(bounded(2*time.Second, 30*time.Second)) // full
	if s.sinks[0].unsaved.Load() == 0 {
		t.Error("all positions were saved: the directory was not full")
	}
	if now := s.sink(0).Acked; now <= acked {
		t.Errorf("%d lines before and %d after: nothing was delivered meanwhile", acked, now)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n := stop()
	eventually(t, "all lines", func() bool { return len(lines(out)) >= n })
	s.stop()
	appendTo(t, log, numbered(n, n+10))
	n += 10
	run(t, dir, cfg, newInventory())
	eventually(t, "what came after", func() bool { return len(lines(out)) >= n })
	if lost, doubled, what := tally(lines(out), n); lost+doubled > 0 {
		t.Errorf("%d lost, %d doubled of %d: %s", lost, doubled, n, what)
	}
}
