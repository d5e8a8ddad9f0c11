package logship

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

var lineZero = time.Date(2026, 11, 21, 9, 20, 0, 0, time.UTC)

// timed gives CRI lines, one a second, of which each tenth is in two pieces.
func timed(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		at := lineZero.Add(time.Duration(i) * time.Second).Format(time.RFC3339Nano)
		if i%10 == 0 {
			fmt.Fprintf(&b, "%s stdout P li\n%s stdout F ne %d\n", at, at, i)
			continue
		}
		fmt.Fprintf(&b, "%s stderr F line %d\n", at, i)
	}
	return b.String()
}

// keep writes what a rotation has left behind, last written to at that line's time.
func keep(t *testing.T, path string, content []byte, last int) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	at := lineZero.Add(time.Duration(last) * time.Second)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func numbers(lines []string) (out []int) {
	for _, l := range lines {
		n := -1
		_, _ = fmt.Sscanf(l[strings.LastIndex(l, "line ")+5:], "%d", &n)
		out = append(out, n)
	}
	return out
}

func count(from, to int) (out []int) {
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

func TestResendSendsExactlyTheLinesSinceThenFromRotatedAndPackedFilesToo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "c0ffee", Name: "web", Runtime: "docker", State: container.Running, Labels: map[string]string{"tier": "front"},
		Log: container.Log{Path: filepath.Join(dir, "c/0.log"), Format: container.CRI}}
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Written and rotated before the agent came; the packed ones it does not follow.
	keep(t, c.Log.Path+".3.gz", packed(t, timed(0, 100)), 100)
	keep(t, c.Log.Path+".2.gz", packed(t, timed(100, 200)), 200)
	keep(t, c.Log.Path+".1", []byte(timed(200, 300)), 300)
	appendTo(t, c.Log.Path, timed(300, 400))
	out := filepath.Join(dir, "copy")
	s := run(t, dir, Config{Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, newInventory(c))
	eventually(t, "what is not packed", func() bool { return len(lines(out)) == 200 && s.sink(0).Lag == 0 })
	before, err := os.ReadFile(filepath.Join(dir, "state/positions.log"))
	if err != nil {
		t.Fatal(err)
	}
	told := 200
	for _, since := range []int{150, 100, 299, 399, 30} {
		got, err := s.Resend(t.Context(), ResendRequest{Log: "web", Since: lineZero.Add(time.Duration(since) * time.Second)}, func([]Resent) {})
		if err != nil {
			t.Fatalf("since line %d: %v", since, err)
		}
		if len(got) != 1 || got[0].Acked != uint64(400-since) || !got[0].Done || len(got[0].Skipped) > 0 {
			t.Errorf("since line %d: told %+v", since, got)
		}
		all := lines(out)
		if sent := numbers(all[told:]); !slices.Equal(sent, count(since, 400)) {
			t.Errorf("since line %d: sent %v", since, sent)
		}
		for _, l := range all[told:] {
			if !strings.Contains(l, " web1 web std") {
				t.Fatalf("a line came as %q", l)
			}
		}
		told = len(all)
	}
	after, err := os.ReadFile(filepath.Join(dir, "state/positions.log"))
	if err != nil {
		t.Fatal(err)
	}
	if more := string(after[len(before):]); strings.Contains(more, `"at"`) {
		t.Errorf("positions moved: %s", more)
	}
	s.stop()
	run(t, dir, Config{Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, newInventory(c))
	appendTo(t, c.Log.Path, timed(400, 401))
	eventually(t, "one line more after a restart", func() bool { return len(lines(out)) > told })
	if sent := numbers(lines(out)[told:]); !slices.Equal(sent, []int{400}) {
		t.Errorf("after a restart %v came", sent)
	}
}

func TestResendEndsWhereTheSinkStoodAndWhatFollowsComesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	cfg := Config{Files: []File{{Path: log}}, Rules: []shape.Rule{{Redact: []shape.Redact{{Match: "secret", With: "*"}}}},
		Sinks: []SinkConfig{{Name: "far", Type: "syslog", Address: "tcp://" + r.Addr}}}
	s := run(t, dir, cfg, newInventory())
	writeFile(t, log, "secret "+numbered(0, 100))
	r.Wait(100)
	eventually(t, "all is acknowledged", func() bool { return s.sink(0).Acked == 100 })
	r.Stop()
	appendTo(t, log, numbered(100, 110))
	eventually(t, "the sink is down", func() bool { return s.sink(0).Failures > 0 })
	type answer struct {
		sent []Resent
		err  error
	}
	done, said := make(chan answer, 1), make(chan []Resent, 100)
	go func() {
		sent, err := s.Resend(t.Context(), ResendRequest{Log: log, Since: time.Now().Add(-time.Hour), Sink: "far"}, func(p []Resent) { said <- p })
		done <- answer{sent, err}
	}()
	if p := <-said; len(p) != 1 || p[0].Error == "" || p[0].Done {
		t.Errorf("while the sink is down it tells %+v", p)
	}
	back := sinktest.Listen(t, r.Addr)
	if a := <-done; a.err != nil || len(a.sent) != 1 || a.sent[0].Acked != 100 {
		t.Errorf("%+v", a)
	}
	eventually(t, "nothing is behind", func() bool { return s.sink(0).Lag == 0 })
	got := back.Wait(110)
	again := make([]int, 110)
	for _, n := range numbers(got) {
		again[n]++
	}
	if lost, doubled, what := tally(got, 110); lost > 0 || doubled > int(s.sink(0).Doubled) {
		t.Errorf("%d lost, %d doubled: %s", lost, doubled, what)
	}
	for _, m := range got {
		if strings.Contains(m, "secret") {
			t.Errorf("not redacted: %s", m)
		}
	}
}

func TestResendSaysClearlyWhyItSendsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "c0ffee", Name: "web", Runtime: "docker", State: container.Running,
		Log: container.Log{Path: filepath.Join(dir, "c/0.log"), Format: container.CRI}}
	writeFile(t, c.Log.Path, timed(0, 10))
	out := filepath.Join(dir, "copy")
	s := run(t, dir, Config{Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: out}}}, newInventory(c))
	eventually(t, "all lines", func() bool { return len(lines(out)) == 10 && s.sink(0).Lag == 0 })
	for _, x := range []struct {
		req  ResendRequest
		want error
		says string
	}{
		{ResendRequest{Log: "db", Since: lineZero}, ErrNoLog, "resend db: no followed log is called that; `fairlead logs ls` names them"},
		{ResendRequest{Log: "web", Sink: "far", Since: lineZero}, ErrNoSink, "resend to far: no sink of this log is called that; its lines go to copy"},
		{ResendRequest{Log: "web", Since: lineZero.Add(time.Minute)}, ErrNothingSince, "resend web: nothing was written since 2026-11-21T09:21:00Z"},
	} {
		_, err := s.Resend(context.Background(), x.req, func([]Resent) {})
		if !errors.Is(err, x.want) || !strings.HasPrefix(err.Error(), x.says) {
			t.Errorf("%+v: %v", x.req, err)
		}
	}
	if n := len(lines(out)); n != 10 {
		t.Errorf("%d lines", n)
	}
}
