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

func TestWithOneGenerationKeptTheLinesThatAreMissingAreThoseReportedLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	down := sinktest.Listen(t, "")
	down.Stop()
	cfg := Config{Pins: "off", Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "far", Type: "syslog", Address: "tcp://" + down.Addr}}}
	const per = 1000
	n := 0
	generation := func() int {
		text := numbered(n, n+per)
		appendTo(t, log, text)
		n += per
		return len(text)
	}
	rotate := func() {
		if err := os.Rename(log, log+".1"); err != nil {
			t.Fatal(err)
		}
	}
	// Seen while the agent runs: kept by descriptor, whatever becomes of the names.
	s := run(t, dir, cfg, newInventory())
	for range 3 {
		size := generation()
		eventually(t, "the generation is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == int64(size) })
		rotate()
	}
	generation()
	eventually(t, "the last is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Kept == 4 })
	// The agent is away for two rotations: of what it had seen nothing is left, and nothing holds it.
	s.stop()
	rotate()
	generation()
	rotate()
	generation()
	back := sinktest.Listen(t, down.Addr)
	s = run(t, dir, cfg, newInventory())
	last := fmt.Sprintf("line %d", n-1)
	eventually(t, "the last line", func() bool { m := back.Messages(); return len(m) > 0 && strings.HasSuffix(m[len(m)-1], last) })
	eventually(t, "nothing is behind", func() bool { return s.sink(0).Lag == 0 })
	missing, doubled, _ := tally(back.Messages(), n)
	seen := make(map[string]bool)
	for _, m := range back.Messages() {
		seen[m[strings.LastIndex(m, "line "):]] = true
	}
	bytes := 0
	for i := range n {
		if !seen[fmt.Sprintf("line %d", i)] {
			bytes += len(numbered(i, i+1))
		}
	}
	reported := int(s.sink(0).Lost)
	t.Logf("%d of %d lines (%d bytes) are missing, at least %d bytes reported lost", missing, n, bytes, reported)
	if missing == 0 || doubled > 0 {
		t.Errorf("%d missing, %d doubled: the two kept generations alone can arrive", missing, doubled)
	}
	if reported == 0 || reported > bytes {
		t.Errorf("at least %d bytes reported lost, %d are", reported, bytes)
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
