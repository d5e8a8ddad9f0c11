package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// numbered gives lines from..to-1, long enough that a sink that is down cannot have read them all ahead.
func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "%s line %d\n", strings.Repeat("x", 400), i)
	}
	return b.String()
}

func TestWhatCopytruncateLeavesIsReadFromTheCopyWhileASinkIsDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	r.Stop()
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "down", Type: "syslog", Address: "tcp://" + r.Addr}}}
	s := run(t, dir, cfg, newInventory())
	const per = 10_000
	n := 0
	grow := func() {
		appendTo(t, log, numbered(n, n+per))
		n += per
	}
	rotate := func(i int) {
		for k := i; k >= 1; k-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", log, k), fmt.Sprintf("%s.%d", log, k+1))
		}
		copyTruncate(t, log)
	}
	size := func(want int64) func() bool {
		return func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == want }
	}
	for i := range 3 {
		grow()
		fi, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log is seen", size(fi.Size()))
		rotate(i)
		eventually(t, "the cut is seen", size(0))
	}
	for k := 1; k <= 3; k++ { // only the pins have them now
		if err := os.Remove(fmt.Sprintf("%s.%d", log, k)); err != nil {
			t.Fatal(err)
		}
	}
	grow()
	s.stop()
	back := sinktest.Listen(t, r.Addr)
	s = run(t, dir, cfg, newInventory())
	eventually(t, "all lines", func() bool { return len(back.Messages()) >= n })
	if lost, doubled, what := tally(back.Messages(), n); lost+doubled > 0 || s.sink(0).Lost > 0 {
		t.Errorf("%d lost, %d doubled, %d bytes owned up to: %s", lost, doubled, s.sink(0).Lost, what)
	}
}

func TestALogThatIsTruncatedWithoutACopyIsMirroredWhileASinkIsDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	cfg := Config{MirrorBytes: 64 << 20, Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "s", Type: "syslog", Address: "tcp://" + r.Addr}}}
	s := hurried(t, dir, cfg, newInventory())
	const per = 10_000
	n := 0
	life := func() { // one life of docker's max-file=1
		if err := os.Truncate(log, 0); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			appendTo(t, log, numbered(n, n+per/4))
			n += per / 4
			fi, _ := os.Stat(log)
			eventually(t, "the log is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == fi.Size() })
		}
	}
	writeFile(t, log, "")
	for range 2 { // this is how the agent learns it
		life()
		eventually(t, "all while the sink is up", func() bool { return len(r.Messages()) == n && s.sink(0).Lag == 0 })
	}
	first := r.Messages()
	r.Stop()
	for range 3 {
		life()
		eventually(t, "the mirror has the life", func() bool { return s.mirrored() })
	}
	back := sinktest.Listen(t, r.Addr)
	var got []string
	eventually(t, "all lines", func() bool { // some come twice
		got = append(first[:len(first):len(first)], back.Messages()...)
		return len(got) >= n && complete(got, n)
	})
	if lost, doubled, what := tally(got, n); lost+doubled > int(s.sink(0).Doubled) || s.sink(0).Lost > 0 {
		t.Errorf("%d lost, %d doubled, %d bytes owned up to: %s", lost, doubled, s.sink(0).Lost, what)
	}
	eventually(t, "no mirror is left", func() bool { e, _ := os.ReadDir(filepath.Join(dir, "pins")); return len(e) == 0 })
}

// mirrored tells whether the only stream's mirror has all that is in the file.
func (s ship) mirrored() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, str := range s.streams {
		from, _ := str.unread()
		return str.series.Mirrored() >= str.series.Last().Seen() && from == 0
	}
	return false
}

func TestACopyThatIsWrittenOverWhileASinkIsDownIsCountedAsDestroyed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	r.Stop()
	// What the sink that is down has in memory is of another log.
	other := filepath.Join(dir, "other")
	writeFile(t, other, numbered(0, 10_000))
	cfg := Config{Files: []File{{Path: log}, {Path: other}}, Sinks: []SinkConfig{
		{Name: "down", Type: "syslog", Address: "tcp://" + r.Addr},
		{Name: "up", Type: "file", Path: filepath.Join(dir, "up")},
	}}
	s := run(t, dir, cfg, newInventory())
	up := func() int {
		return len(slices.DeleteFunc(lines(filepath.Join(dir, "up")), func(l string) bool { return !strings.Contains(l, log) }))
	}
	eventually(t, "two batches of the other log", func() bool { return s.sink(0).Read > 3000 && s.sink(1).Acked == 10_000 })
	const per = 5000
	n := 0
	for range 3 {
		appendTo(t, log, numbered(n, n+per))
		n += per
		eventually(t, "the lines at the sink that is up", func() bool { return up() == n })
		copyTruncate(t, log)
		eventually(t, "the cut is seen", func() bool { return s.Streams()[0].Size == 0 })
	}
	appendTo(t, log, numbered(n, n+1))
	n++
	back := sinktest.Listen(t, r.Addr)
	last := fmt.Sprintf("line %d", n-1)
	eventually(t, "the last line", func() bool {
		return slices.ContainsFunc(back.Messages(), func(m string) bool { return strings.Contains(m, log) && strings.HasSuffix(m, last) })
	})
	eventually(t, "nothing is behind", func() bool { return s.sink(0).Lag == 0 })
	got := slices.DeleteFunc(back.Messages(), func(m string) bool { return !strings.Contains(m, log) })
	_, doubled, what := tally(got, n)
	arrived, lost := map[string]bool{}, 0
	for _, m := range got {
		arrived[m[strings.LastIndex(m, "line "):]] = true
	}
	for i := range n {
		if !arrived[fmt.Sprintf("line %d", i)] {
			lost += len(numbered(i, i+1))
		}
	}
	if reported := int(s.sink(0).Lost); lost == 0 || reported != lost || doubled > 0 {
		t.Errorf("%d bytes reported lost, %d are missing, %d lines doubled: %s", reported, lost, doubled, what)
	}
	s.stop()
	if k := s.sink(1); k.Lost > 0 {
		t.Errorf("%d bytes reported lost for the sink that has all", k.Lost)
	}
}

// copyTruncate is what cp a.log a.log.1; : > a.log does.
func copyTruncate(t *testing.T, log string) {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log+".1", b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
}

// What a program writes between cp and truncate is in neither file.
func TestWhatWasWrittenBetweenCopyAndTruncationIsCountedToTheByte(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	r.Stop()
	s := hurried(t, dir, Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "s", Type: "syslog", Address: "tcp://" + r.Addr}}}, newInventory())
	before, between := numbered(0, 10_000), numbered(10_000, 10_100)
	writeFile(t, log, before)
	seen := func(size int) func() bool {
		return func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == int64(size) }
	}
	eventually(t, "the lines are seen", seen(len(before)))
	writeFile(t, log+".1", before)
	appendTo(t, log, between)
	eventually(t, "the lines between are seen", seen(len(before+between)))
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the truncation is seen", seen(0))
	appendTo(t, log, numbered(10_100, 10_200))
	back := sinktest.Listen(t, r.Addr)
	eventually(t, "the last line", func() bool { return len(back.Messages()) >= 10_100 && s.sink(0).Lag == 0 })
	lost, doubled, what := tally(back.Messages(), 10_200)
	if lost != 100 || doubled > 0 || s.sink(0).Lost != uint64(len(between)) {
		t.Errorf("%d lines are missing, %d doubled, %d bytes reported lost of %d: %s", lost, doubled, s.sink(0).Lost, len(between), what)
	}
}
