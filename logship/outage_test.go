//go:build kernel

package logship

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// bounded gives the size of a test: a small one, or the whole one for `make soak-logs`.
func bounded[T any](small, whole T) T {
	if os.Getenv("FAIRLEAD_SOAK") != "" {
		return whole
	}
	return small
}

// pour writes numbered lines at a steady rate until stop is called, which gives how many there are.
func pour(t testing.TB, path string) (stop func() int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan bool), make(chan int)
	go func() {
		defer f.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; {
			select {
			case <-end:
				ended <- n
				return
			case <-tick.C:
			}
			if _, err := f.WriteString(numbered(n, n+20)); err != nil {
				t.Error(err)
			}
			n += 20
		}
	}()
	return func() int { close(end); return <-ended }
}

// documents decodes newline JSON with a message in each line.
func documents(body []byte) (out []string, err error) {
	in := bufio.NewScanner(bytes.NewReader(body))
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		var doc struct{ Message string }
		if err := json.Unmarshal(in.Bytes(), &doc); err != nil {
			return nil, err
		}
		out = append(out, doc.Message)
	}
	return out, in.Err()
}

func TestNothingIsLostWhileASinkRefusesClosesOrIsOverloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	h := &sinktest.HTTP{Decode: documents}
	h.Start(t)
	s := run(t, dir, Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{
		{Name: "stream", Type: "syslog", Address: "tcp://" + r.Addr}, {Name: "sure", Type: "ndjson", URL: h.URL},
	}}, newInventory())
	stop := pour(t, log)
	eventually(t, "both take lines", func() bool { return s.sink(0).Acked > 0 && s.sink(1).Acked > 0 })
	each := bounded(time.Second, time.Minute)
	before := r.Messages()
	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"refuses", func() { before = r.Messages(); r.Stop(); h.Down() }, func() { r = sinktest.Listen(t, r.Addr); h.Up() }},
		{"accepts and closes", func() { r.Set(sinktest.Rude); h.Set(sinktest.Rude) }, func() { r.Set(sinktest.Reading); h.Set(sinktest.Reading) }},
		{"503", func() { r.Set(sinktest.Stuck); h.Fail(503, 0) }, func() { r.Set(sinktest.Reading); h.Fail(0, 0) }},
	} {
		acked := s.sink(1).Acked
		outage.begin()
		eventually(t, outage.name+" is noticed", func() bool { return !s.sink(1).Up })
		time.Sleep(each) // lines go on
		outage.end()
		eventually(t, "lines flow after "+outage.name, func() bool { return s.sink(0).Up && s.sink(1).Up && s.sink(1).Acked > acked })
	}
	n := stop()
	received := func() []string { return append(append([]string(nil), before...), r.Messages()...) }
	eventually(t, "the stream sink has all", func() bool { lost, _, _ := tally(received(), n); return lost == 0 })
	eventually(t, "the other sink has all", func() bool { return len(h.Received()) >= n })
	if lost, doubled, what := tally(h.Received(), n); lost+doubled > 0 {
		t.Errorf("acknowledged sink: %d lost, %d doubled of %d: %s", lost, doubled, n, what)
	}
	_, doubled, what := tally(received(), n)
	if owned := int(s.sink(0).Doubled); doubled > owned {
		t.Errorf("stream sink: %d doubled of %d, and it owns up to %d: %s", doubled, n, owned, what)
	}
	t.Logf("%d lines, %d doubled at the stream sink", n, doubled)
	if lost := s.sink(0).Lost + s.sink(1).Lost; lost > 0 {
		t.Errorf("%d bytes reported lost", lost)
	}
}

// missing gives how many bytes the lines have that did not arrive, of n.
func missing(t *testing.T, got []string, n int) (bytes int) {
	t.Helper()
	seen := make([]bool, n)
	for _, k := range numbers(got) {
		if seen[k] {
			t.Errorf("line %d came twice", k)
		}
		seen[k] = true
	}
	for i, ok := range seen {
		if !ok {
			bytes += len(numbered(i, i+1))
		}
	}
	return bytes
}

// keptOnce is a log of which one older generation is kept, behind a sink that is down.
type keptOnce struct {
	t    *testing.T
	path string
	cfg  Config
	n    int
}

func newKeptOnce(t *testing.T) (k *keptOnce, sinkUp func() *sinktest.Receiver) {
	dir := t.TempDir()
	down := sinktest.Listen(t, "")
	down.Stop()
	k = &keptOnce{t: t, path: filepath.Join(dir, "a.log")}
	k.cfg = Config{Pins: "off", Files: []File{{Path: k.path}}, Sinks: []SinkConfig{{Name: "far", Type: "syslog", Address: "tcp://" + down.Addr}}}
	return k, func() *sinktest.Receiver { return sinktest.Listen(t, down.Addr) }
}

// write adds lines, and waits until a running agent has seen them.
func (k *keptOnce) write(s *ship) (bytes int) {
	const per = 1000
	text := numbered(k.n, k.n+per)
	appendTo(k.t, k.path, text)
	k.n += per
	if s != nil {
		k.seen(*s)
	}
	return len(text)
}

// seen waits until the agent knows the size of the newest file.
func (k *keptOnce) seen(s ship) {
	fi, err := os.Stat(k.path)
	if err != nil {
		k.t.Fatal(err)
	}
	eventually(k.t, "the lines are seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == fi.Size() })
}

func (k *keptOnce) rotate() {
	if err := os.Rename(k.path, k.path+".1"); err != nil {
		k.t.Fatal(err)
	}
}

// arrived waits for everything that can still come.
func (k *keptOnce) arrived(r *sinktest.Receiver, s ship) []string {
	last := fmt.Sprintf("line %d", k.n-1)
	eventually(k.t, "the last line", func() bool { m := r.Messages(); return len(m) > 0 && strings.HasSuffix(m[len(m)-1], last) })
	eventually(k.t, "nothing is behind", func() bool { return s.sink(0).Lag == 0 })
	return r.Messages()
}

func TestWhatIsTruncatedUnreadWhileTheAgentRunsIsReportedToTheByte(t *testing.T) {
	t.Parallel()
	k, sinkUp := newKeptOnce(t)
	s := run(t, filepath.Dir(k.path), k.cfg, newInventory())
	lives := func(n int) {
		t.Helper()
		eventually(t, "what was done is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Kept == n })
	}
	for i := range 6 { // as docker does with max-file=1, and sometimes a rotation
		k.write(nil)
		lives(i + 1)
		k.seen(s)
		if i%3 == 2 {
			k.rotate()
			continue
		}
		if err := os.Truncate(k.path, 0); err != nil {
			t.Fatal(err)
		}
		lives(i + 2)
	}
	k.write(nil)
	lives(7)
	got := k.arrived(sinkUp(), s)
	lost := missing(t, got, k.n)
	if reported := int(s.sink(0).Lost); lost == 0 || reported != lost {
		t.Errorf("%d bytes reported lost, %d of %d lines arrived, and %d bytes are missing", reported, len(got), k.n, lost)
	}
}

func TestWhatWasSeenAndIsDestroyedWhileNoAgentRunsIsReportedToTheByteAndTheRestIsABound(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name    string
		away    int // rotations while no agent runs
		unseen  int // generations that nobody has seen
		restart bool
	}{{"seen", 2, 0, false}, {"unseen", 3, 1, false}, {"twice away", 2, 0, true}} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			k, sinkUp := newKeptOnce(t)
			dir := filepath.Dir(k.path)
			s := run(t, dir, k.cfg, newInventory())
			seen := 0
			for range 3 { // kept by descriptor, whatever becomes of the names
				seen += k.write(&s)
				k.rotate()
			}
			seen += k.write(&s)
			s.stop() // and nothing holds them
			counted := 0
			if x.restart {
				s = run(t, dir, k.cfg, newInventory())
				eventually(t, "the log is found", func() bool { return len(s.Streams()) == 1 })
				counted = int(s.sink(0).Lost)
				s.stop()
			}
			for range x.away {
				k.rotate()
				k.write(nil)
			}
			s = run(t, dir, k.cfg, newInventory())
			got := k.arrived(sinkUp(), s)
			lost, reported := missing(t, got, k.n), counted+int(s.sink(0).Lost)
			t.Logf("%d of %d lines arrived; %d bytes are missing, at least %d reported", len(got), k.n, lost, reported)
			if reported != seen || reported > lost || x.unseen == 0 && reported != lost {
				t.Errorf("%d bytes reported lost; %d were seen before they were destroyed, %d are missing", reported, seen, lost)
			}
			s.stop()
			s = run(t, dir, k.cfg, newInventory())
			eventually(t, "the log is found again", func() bool { return len(s.Streams()) == 1 })
			if again := s.sink(0).Lost; again > 0 {
				t.Errorf("%d bytes are reported once more", again)
			}
		})
	}
}

// queued is how many events the kernel keeps for one inotify instance.
func queued(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if n > 1<<17 {
		t.Skipf("fs.inotify.max_queued_events is %d: filling it would take too long", n)
	}
	return n
}

func TestLinesArriveOnceAlthoughTheQueueOfEventsOverflowed(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "copy")
	s := run(t, dir, Config{Files: []File{{Path: filepath.Join(logs, "*.log")}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, newInventory())
	writeFile(t, filepath.Join(logs, "first.log"), numbered(0, 1))
	eventually(t, "the first line", func() bool { return len(lines(out)) == 1 })
	n := 1
	// More names come and go than the kernel's queue and the buffer behind it hold, while nobody reads.
	s.sinks[0].mu.Lock() // the follower stops at the next log that it wants to wake the sink for
	appendTo(t, filepath.Join(logs, "first.log"), numbered(1, 2))
	n++
	for i := range queued(t)/2 + 4096 { // a name that comes and goes is two events

		p := filepath.Join(logs, fmt.Sprintf("noise%d", i))
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 { // logs of which every event is lost
		writeFile(t, filepath.Join(logs, fmt.Sprintf("late%d.log", i)), numbered(n, n+100))
		n += 100
	}
	s.sinks[0].mu.Unlock()
	eventually(t, "the overflow", func() bool { return s.overflows.Load() > 0 })
	eventually(t, "all lines", func() bool { return len(lines(out)) >= n })
	if lost, doubled, what := tally(lines(out), n); lost+doubled > 0 {
		t.Errorf("%d lost, %d doubled of %d: %s", lost, doubled, n, what)
	}
}
