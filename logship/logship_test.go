package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func both(dir, addr string) Config {
	return Config{Sinks: []SinkConfig{
		{Name: "central", Type: "syslog", Address: "tcp://" + addr},
		{Name: "copy", Type: "file", Path: filepath.Join(dir, "copy.log")},
	}}
}

func TestOutputAndFilesOfAContainerReachBothSinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	upper, volume := filepath.Join(dir, "upper"), filepath.Join(dir, "volume")
	c := container.Container{ID: "c0ffee", Name: "shop", Runtime: "docker", Image: "img:1", State: container.Running,
		Labels: map[string]string{LabelLogs: "/var/log/app/*.log, /data/x.log", "tier": `a"]\`},
		Log:    container.Log{Path: filepath.Join(dir, "c-json.log"), Format: container.DockerJSON},
		Rootfs: container.Rootfs{Upper: upper},
		Mounts: []container.Mount{{Type: "volume", Source: volume, Destination: "/data"}},
	}
	writeFile(t, c.Log.Path, `{"log":"hello \u00e9\n","stream":"stderr","time":"2026-11-21T09:20:00.5Z"}`+"\n")
	writeFile(t, filepath.Join(upper, "var/log/app/a.log"), "from inside\n")
	writeFile(t, filepath.Join(volume, "x.log"), "from a volume\n")
	// A container cannot lead us out of its root.
	writeFile(t, filepath.Join(dir, "secret"), "root's own\n")
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(upper, "var/log/app/evil.log")); err != nil {
		t.Fatal(err)
	}
	r := sinktest.Listen(t, "")
	cfg := both(dir, r.Addr)
	cfg.Files = []File{{Path: filepath.Join(dir, "host/*.log")}}
	s := run(t, dir, cfg, newInventory(c))
	r.Wait(3)
	writeFile(t, filepath.Join(dir, "host/new.log"), "plain\nunfinished")
	r.Wait(4)
	writeFile(t, filepath.Join(upper, "var/log/app/later.log"), "later\n")
	appendTo(t, filepath.Join(dir, "host/new.log"), " line\n")
	msgs := strings.Join(r.Wait(6), "\n")
	for _, want := range []string{
		`<11>1 2026-11-21T09:20:00.500000Z web1 shop - stderr [fairlead@32473 runtime="docker" id="c0ffee" name="shop" image="img:1" label="fairlead.logs=/var/log/app/*.log, /data/x.log" label="tier=a\"\]\\"] hello é`,
		`path="/var/log/app/a.log"`, "] from inside", `path="/data/x.log"`, "] from a volume", "] plain", "] unfinished line", "] later",
		`web1 new.log - file [fairlead@32473 path="` + filepath.Join(dir, "host/new.log") + `"] plain`,
	} {
		if !strings.Contains(msgs, want) {
			t.Errorf("no message has %s", want)
		}
	}
	copied := filepath.Join(dir, "copy.log")
	eventually(t, "six lines in the file", func() bool { return len(lines(copied)) == 6 })
	if strings.Contains(msgs+strings.Join(lines(copied), ""), "root's own") {
		t.Error("a file outside the container's root was read")
	}
	eventually(t, "nothing lags", func() bool { return s.sink(0).Lag == 0 && s.sink(1).Lag == 0 && s.sink(0).Acked == 6 })
	if n := len(s.Streams()); n != 5 {
		t.Errorf("%d streams, want 5: %+v", n, s.Streams())
	}
	if t.Failed() {
		t.Log(msgs)
	}
}

func TestARestartGoesOnExactlyThereAndANewSinkBeginsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "old", Type: "file", Path: filepath.Join(dir, "old")}}}
	writeFile(t, log, "line 0\nline 1\n")
	s := run(t, dir, cfg, newInventory())
	eventually(t, "two lines", func() bool { return len(lines(filepath.Join(dir, "old"))) == 2 })
	s.stop()
	appendTo(t, log, "line 2\n")
	cfg.Sinks = append(cfg.Sinks,
		SinkConfig{Name: "new", Type: "file", Path: filepath.Join(dir, "new")},
		SinkConfig{Name: "all", Type: "file", Path: filepath.Join(dir, "all"), From: "start"})
	s = run(t, dir, cfg, newInventory())
	eventually(t, "all sinks", func() bool {
		return len(lines(filepath.Join(dir, "old"))) >= 3 && len(lines(filepath.Join(dir, "new"))) >= 1 && len(lines(filepath.Join(dir, "all"))) >= 3
	})
	s.stop()
	if lost, doubled, what := tally(lines(filepath.Join(dir, "old")), 3); lost+doubled > 0 {
		t.Errorf("old sink: %s", what)
	}
	if got := lines(filepath.Join(dir, "new")); len(got) != 1 || !strings.HasSuffix(got[0], "line 2") {
		t.Errorf("new sink got %q, want line 2 alone", got)
	}
}

func TestNothingIsLostWhenAFileIsRotatedTwiceBetweenLooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	cfg := Config{Files: []File{{Path: filepath.Join(dir, "*")}}, Sinks: []SinkConfig{{Name: "f", Type: "file", Path: filepath.Join(dir, "out/f")}}}
	s := run(t, dir, cfg, newInventory())
	const perFile, files = 200, 12
	n := 0
	for i := range files {
		var b strings.Builder
		for range perFile {
			fmt.Fprintf(&b, "line %d\n", n)
			n++
		}
		appendTo(t, log, b.String())
		if i%3 == 2 {
			time.Sleep(30 * time.Millisecond) // some rotations find the agent awake, others come in threes
		}
		if i < files-1 {
			for k := 20; k >= 1; k-- {
				_ = os.Rename(fmt.Sprintf("%s.%d", log, k), fmt.Sprintf("%s.%d", log, k+1))
			}
			if err := os.Rename(log, log+".1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	out := filepath.Join(dir, "out/f")
	defer func() {
		if t.Failed() {
			lost, doubled, what := tally(lines(out), n)
			t.Logf("%d lost, %d doubled: %s; %+v", lost, doubled, what, s.Streams())
		}
	}()
	eventually(t, "all lines", func() bool { return len(lines(out)) >= n })
	s.stop()
	if lost, doubled, what := tally(lines(out), n); lost+doubled > 0 {
		t.Errorf("%d lost, %d doubled: %s", lost, doubled, what)
	}
}

func TestTruncationStartsAnewAndCountsWhatWasDestroyed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	// Nobody listens: the sink takes nothing while the file is cut.
	r := sinktest.Listen(t, "")
	r.Stop()
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{
		{Name: "f", Type: "file", Path: filepath.Join(dir, "f")}, {Name: "down", Type: "syslog", Address: "tcp://" + r.Addr}}}
	writeFile(t, log, strings.Repeat(strings.Repeat("x", 99)+"\n", 50_000)) // more than the sink that is down can hold
	s := run(t, dir, cfg, newInventory())
	out := filepath.Join(dir, "f")
	eventually(t, "first life", func() bool { return s.sink(0).Acked == 50_000 && s.sink(0).Lag == 0 })
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, "line 0\nline 1\n")
	eventually(t, "second life", func() bool { return len(lines(out)) >= 50_002 })
	back := sinktest.Listen(t, r.Addr)
	eventually(t, "the sink that was down has the second life", func() bool {
		m := back.Messages()
		return len(m) > 0 && strings.HasSuffix(m[len(m)-1], "line 1")
	})
	got := int64(len(back.Messages())-2) * 100
	if lost := s.sink(1).Lost; lost == 0 || int64(lost)+got != 5_000_000 {
		t.Errorf("lost at least %d bytes and %d arrived, want 5,000,000 together", lost, got)
	}
	if s.sink(0).Lost != 0 {
		t.Errorf("the file sink lost %d bytes", s.sink(0).Lost)
	}
}

func TestARemovedContainerIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "dead", Name: "job", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: filepath.Join(dir, "c/0.log"), Format: container.CRI}}
	writeFile(t, c.Log.Path, cri("line 0"))
	r := sinktest.Listen(t, "")
	inv := newInventory(c)
	s := run(t, dir, both(dir, r.Addr), inv)
	r.Wait(1)
	appendTo(t, c.Log.Path, cri("line 1")+strings.Replace(cri("last "), " F ", " P ", 1))
	if err := os.RemoveAll(filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	inv.publish(nil, []container.Tombstone{{Container: c}})
	if got := r.Wait(3)[2]; !strings.HasSuffix(got, "] last ") {
		t.Errorf("the unfinished line came as %q", got)
	}
	eventually(t, "the stream is closed", func() bool { return len(s.Streams()) == 0 })
	inv.publish(nil, []container.Tombstone{{Container: c}})
	s.stop()
	if got := lines(filepath.Join(dir, "copy.log")); len(got) != 3 || len(r.Messages()) != 3 {
		t.Errorf("%d lines in the file, %d at syslog, want 3", len(got), len(r.Messages()))
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "pins")); len(left) > 0 {
		t.Errorf("pins are left: %v", left)
	}
}

func TestPartsOfALineThatWereReadBeforeARestartAreNotForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "p", Name: "p", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
	part := func(s string) string { return strings.Replace(cri(s), " F ", " P ", 1) }
	cfg := Config{Sinks: []SinkConfig{{Name: "f", Type: "file", Path: filepath.Join(dir, "f")}}}
	out := filepath.Join(dir, "f")
	writeFile(t, c.Log.Path, part("one ")+strings.Replace(cri("whole"), "stdout", "stderr", 1))
	s := run(t, dir, cfg, newInventory(c))
	eventually(t, "the whole line", func() bool { return len(lines(out)) == 1 })
	s.stop()
	appendTo(t, c.Log.Path, cri("two"))
	run(t, dir, cfg, newInventory(c))
	eventually(t, "the joined line", func() bool { return len(lines(out)) >= 2 })
	if got := lines(out); len(got) != 2 || !strings.HasSuffix(got[1], "stdout one two") {
		t.Errorf("got %q", got)
	}
}

func TestAGenerationThatWasRemovedWhileTheAgentWasDownIsReadFromItsPin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a-json.log")
	c := container.Container{ID: "p", Name: "p", Runtime: "docker", State: container.Running, Log: container.Log{Path: log, Format: container.CRI}}
	dead := sinktest.Listen(t, "")
	dead.Stop()
	cfg := Config{Sinks: []SinkConfig{{Name: "late", Type: "syslog", Address: "tcp://" + dead.Addr}}}
	writeFile(t, log, cri("line 0"))
	s := run(t, dir, cfg, newInventory(c))
	eventually(t, "a try", func() bool { return s.sink(0).Failures > 0 })
	s.stop()
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	writeFile(t, log, cri("line 1"))
	r := sinktest.Listen(t, dead.Addr)
	run(t, dir, cfg, newInventory(c))
	got := r.Wait(2)
	if lost, doubled, what := tally(got, 2); lost+doubled > 0 {
		t.Errorf("%d lost, %d doubled: %s %q", lost, doubled, what, got)
	}
}

func TestWhatWasDestroyedWhileTheAgentWasDownIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	dead := sinktest.Listen(t, "")
	dead.Stop()
	cfg := Config{Pins: "off", Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "late", Type: "syslog", Address: "tcp://" + dead.Addr}}}
	writeFile(t, log, "line 0\n")
	s := run(t, dir, cfg, newInventory())
	eventually(t, "a try", func() bool { return s.sink(0).Failures > 0 })
	s.stop()
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	s = run(t, dir, cfg, newInventory())
	eventually(t, "the loss", func() bool { return s.sink(0).Lost == uint64(len("line 0\n")) })
}

func TestVeryLongLinesArriveWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, out := filepath.Join(dir, "a.log"), filepath.Join(dir, "f")
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "f", Type: "file", Path: out}}}
	sizes := []int{10, 300 << 10, 20, 1 << 20, 700 << 10, 5, 3 << 19, 7}
	var b strings.Builder
	for i, n := range sizes {
		b.WriteString(strings.Repeat(string(rune('a'+i)), n) + "\n")
	}
	writeFile(t, log, b.String())
	run(t, dir, cfg, newInventory())
	eventually(t, "the last line", func() bool { got := lines(out); return len(got) > 0 && strings.HasSuffix(got[len(got)-1], " hhhhhhh") })
	var got []string
	for _, l := range lines(out) {
		got = append(got, fmt.Sprintf("%d", len(strings.Fields(l)[4])))
	}
	want := "10 307200 20 1048576 716800 5 1048576 524288 7" // beyond 1 MiB a line is split
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
