package logship

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// pack does what gzip does to path, and keeps the first part of it only where that is below 1.
func pack(t *testing.T, path string, part float64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".gz", b.Bytes()[:int(part*float64(b.Len()))], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path+".gz", fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// banner is how each generation begins: heads alone tell nothing.
var banner = strings.Repeat("welcome ", 40) + "\n"

// varied gives lines that a packer cannot make into nothing.
func varied(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%016x %016x line %06d\n", uint64(i+1)*0x9e3779b97f4a7c15, uint64(i+7)*0xc2b2ae3d27d4eb4f, i)
	}
	return b.String()
}

func inOrder(t *testing.T, got []string) {
	t.Helper()
	last := ""
	for _, l := range got {
		if _, k, ok := strings.Cut(l, " line "); ok {
			if k <= last {
				t.Fatalf("line %s came after line %s", k, last)
			}
			last = k
		}
	}
}

// away is a log whose agent does not run, and has delivered the first 1000 lines of it.
func away(t *testing.T) (log string, start func() (ship, string)) {
	dir := t.TempDir()
	log = filepath.Join(dir, "logs", "a.log")
	out := filepath.Join(dir, "copy")
	cfg := Config{Pins: "off", Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}
	start = func() (ship, string) { return run(t, dir, cfg, newInventory()), out }
	writeFile(t, log, banner+varied(0, 1000))
	s, _ := start()
	eventually(t, "the first lines", func() bool { return len(lines(out)) == 1001 && s.sink(0).Lag == 0 })
	s.stop()
	return log, start
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasPackedWhileNoAgentRanIsReadFromThere(t *testing.T) {
	t.Parallel()
	log, start := away(t)
	writeFile(t, log+".9", banner+"another log, of somebody else, with the same head and an older date\n"+varied(0, 5000))
	pack(t, log+".9", 1)
	appendTo(t, log, varied(1000, 20000))
	move(t, log, log+".1")
	pack(t, log+".1", 1)
	writeFile(t, log, banner+varied(20000, 20010)) // nobody sees this one
	move(t, log+".1.gz", log+".2.gz")
	move(t, log, log+".1")
	pack(t, log+".1", 1)
	writeFile(t, log, varied(20010, 20020))
	const n = 20020
	s, out := start()
	eventually(t, "all lines", func() bool { return len(lines(out)) >= n+2 && s.sink(0).Lag == 0 })
	got := lines(out)
	if lost, doubled, what := tally(got, n); lost+doubled > 0 || len(got) != n+2 {
		t.Errorf("%d lines, %d lost, %d doubled: %s", len(got), lost, doubled, what)
	}
	inOrder(t, got)
	if k := s.sink(0); k.Lost > 0 || k.Whole > 0 {
		t.Errorf("%d bytes, %d generations reported lost", k.Lost, k.Whole)
	}
	eventually(t, "the unpacked files are let go of", func() bool { return s.Streams()[0].Kept == 1 })
	s.stop()
	s, _ = start() // nothing of it comes again
	appendTo(t, log, varied(n, n+1))
	eventually(t, "one line more", func() bool { return len(lines(out)) == n+3 })
}

func TestOfAPackedFileThatIsCutOffTheRestIsCountedLost(t *testing.T) {
	t.Parallel()
	log, start := away(t)
	appendTo(t, log, varied(1000, 20000))
	move(t, log, log+".1")
	pack(t, log+".1", 0.5)
	writeFile(t, log, varied(20000, 20010))
	s, out := start()
	eventually(t, "the last line", func() bool {
		got := lines(out)
		return strings.HasSuffix(got[len(got)-1], " line 020009") && s.sink(0).Lag == 0
	})
	got := slices.DeleteFunc(lines(out), func(l string) bool {
		_, k, _ := strings.Cut(l, " line ")
		return len(k) != 6 // where it was cut off
	})
	lost, doubled, _ := tally(got, 20010)
	if lost < 5000 || lost > 15000 || doubled > 0 {
		t.Errorf("%d lines lost, %d doubled", lost, doubled)
	}
	if k := s.sink(0).Lost; k < 1 || k > uint64(lost)*60 {
		t.Errorf("at least %d bytes reported lost, of %d lines", k, lost)
	}
}

// The sink is down, and generations that wait for it are packed while the agent is away; there are no pins.
func TestGenerationsThatWaitedUnreadAreReadPackedInTheirOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "logs", "a.log")
	r := sinktest.Listen(t, "")
	r.Stop()
	cfg := Config{Pins: "off", Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "s", Type: "syslog", Address: "tcp://" + r.Addr}}}
	s := hurried(t, dir, cfg, newInventory())
	const per = 500
	n := 0
	for k := 4; k >= 0; k-- {
		writeFile(t, log, banner+varied(n, n+per))
		n += per
		eventually(t, "the lines are seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Kept == 5-k && all[0].Size > per })
		if k > 0 {
			move(t, log, fmt.Sprintf("%s.%d", log, k))
		}
	}
	s.stop()
	for k := 4; k > 0; k-- {
		pack(t, fmt.Sprintf("%s.%d", log, k), 1)
	}
	back := sinktest.Listen(t, r.Addr)
	s = run(t, dir, cfg, newInventory())
	eventually(t, "all lines", func() bool { return len(back.Messages()) >= n+5 && s.sink(0).Lag == 0 })
	got := back.Messages()
	if lost, doubled, what := tally(got, n); lost+doubled > 0 || s.sink(0).Lost > 0 {
		t.Errorf("%d lines, %d lost, %d doubled, %d bytes reported lost: %s", len(got), lost, doubled, s.sink(0).Lost, what)
	}
	inOrder(t, got)
}
