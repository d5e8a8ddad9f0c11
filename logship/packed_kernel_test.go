//go:build kernel

package logship

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// The real logrotate, told to work on files with two names, renames the log, makes a new one and packs what it renamed at
// once. One sink keeps up, the other is down: the descriptor keeps what has lost its last name before it got another.
func TestALogThatLogrotatePacksAtOnceIsReadOnceAndWhole(t *testing.T) {
	hosttest.Root(t)
	hosttest.Require(t, "logrotate", "gzip")
	dir := t.TempDir()
	logs, conf := filepath.Join(dir, "logs"), filepath.Join(dir, "conf")
	log := filepath.Join(logs, "a.log")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, conf, log+" {\n  rotate 3\n  size 1\n  create 0644 root root\n  compress\n  allowhardlink\n}\n")
	rotate := func() {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "logrotate", "-f", "-s", filepath.Join(dir, "rotated"), conf).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	r := sinktest.Listen(t, "")
	r.Stop()
	up := filepath.Join(dir, "up")
	// Everything there is asked for, packed files too.
	cfg := Config{Files: []File{{Path: filepath.Join(logs, "*")}}, Sinks: []SinkConfig{
		{Name: "down", Type: "syslog", Address: "tcp://" + r.Addr}, {Name: "up", Type: "file", Path: up}}}
	s := run(t, dir, cfg, newInventory())
	const per = 3000
	n := 0
	for range 5 { // the oldest two are removed
		appendTo(t, log, numbered(n, n+per))
		n += per
		fi, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the lines are seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == fi.Size() })
		rotate()
		eventually(t, "the new file is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == 0 })
	}
	for k, want := range map[string]bool{".1.gz": true, ".2.gz": true, ".3.gz": true, ".1": false, ".4.gz": false} {
		if _, err := os.Stat(log + k); (err == nil) != want {
			t.Errorf("%s%s: %v", filepath.Base(log), k, err)
		}
	}
	appendTo(t, log, numbered(n, n+1))
	n++
	back := sinktest.Listen(t, r.Addr)
	for name, got := range map[string]func() []string{"down": back.Messages, "up": func() []string { return lines(up) }} {
		eventually(t, fmt.Sprintf("the last line at the sink that was %s", name), func() bool { return len(got()) >= n })
		if lost, doubled, what := tally(got(), n); lost+doubled > 0 || len(got()) != n {
			t.Errorf("the sink that was %s: %d lines, %d lost, %d doubled: %s", name, len(got()), lost, doubled, what)
		}
	}
	if lost := s.sink(0).Lost + s.sink(1).Lost; lost > 0 {
		t.Errorf("%d bytes reported lost", lost)
	}
}

// As logrotate is set up everywhere: it refuses to pack a file with two names.
func TestLogrotatePacksAtOnceWhileTheSinkKeepsUp(t *testing.T) {
	hosttest.Root(t)
	hosttest.Require(t, "logrotate", "gzip")
	dir := t.TempDir()
	conf, log, up := filepath.Join(dir, "conf"), filepath.Join(dir, "a.log"), filepath.Join(dir, "up")
	writeFile(t, conf, log+" {\n  rotate 9\n  size 1\n  create 0644 root root\n  compress\n  postrotate\n    sleep 0.2\n  endscript\n}\n")
	s := run(t, dir, Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "up", Type: "file", Path: up}}}, newInventory())
	n := 0
	for range 5 {
		appendTo(t, log, numbered(n, n+1000))
		n += 1000
		eventually(t, "the lines arrive", func() bool { return s.sink(0).Acked == uint64(n) && s.sink(0).Lag == 0 })
		if out, err := exec.CommandContext(t.Context(), "logrotate", "-f", "-s", filepath.Join(dir, "rotated"), conf).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if packed, _ := filepath.Glob(log + ".*.gz"); len(packed) != 5 {
		t.Errorf("logrotate packed %q", packed)
	}
	if lost, doubled, what := tally(lines(up), n); lost+doubled > 0 || s.sink(0).Lost > 0 {
		t.Errorf("%d lost, %d doubled: %s", lost, doubled, what)
	}
}
