package logship

import (
	"fmt"
	"os"
	"path/filepath"
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
	eventually(t, "all lines", func() bool { return len(back.Messages())+len(first) >= n })
	got := append(first, back.Messages()...)
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
