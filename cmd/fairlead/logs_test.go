package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship"
	"github.com/fairlead-dev/fairlead/logship/shape"
)

// containers is an inventory that does not change.
type containers []container.Container

func (c containers) Snapshot() *container.Snapshot { return &container.Snapshot{Containers: c} }

func (c containers) Follow(ctx context.Context) iter.Seq[*container.Snapshot] {
	return func(yield func(*container.Snapshot) bool) {
		if yield(c.Snapshot()) {
			<-ctx.Done()
		}
	}
}

// shipping is a log shipper with the container web, behind the operator API.
type shipping struct {
	log, copy, socket, config string
	stop                      func()
}

func ship(t *testing.T, rules ...shape.Rule) shipping {
	t.Helper()
	dir := t.TempDir()
	s := shipping{log: dir + "/c/0.log", copy: dir + "/copy", socket: dir + "/s", config: dir + "/fairlead.yaml"}
	if err := os.Mkdir(dir+"/c", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, fmt.Appendf(nil, "run_dir: %s/run\nstate_dir: %s/state\n", dir, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(t.Output(), nil))
	st, err := state.Open(dir+"/state/logship", quiet)
	if err != nil {
		t.Fatal(err)
	}
	cfg := logship.DefaultConfig()
	cfg.Pins, cfg.Rules = dir+"/pins", rules
	cfg.Sinks = []logship.SinkConfig{{Name: "copy", Type: "file", Path: s.copy}}
	web := container.Container{ID: "c0ffee00", Name: "web", Runtime: "docker", State: container.Running, Log: container.Log{Path: s.log, Format: container.CRI}}
	l, err := logship.New(cfg, logship.Deps{Inventory: containers{web}, State: st, Stat: &stat.Registry{}, Log: quiet, Host: "web1"})
	if err != nil {
		t.Fatal(err)
	}
	server := api.New(s.socket, "", quiet)
	logsRoutes(server, l)
	var stops []func()
	for _, run := range []func(context.Context) error{l.Run, server.Run} {
		ctx, cancel := context.WithCancel(t.Context())
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- run(agent.WithReady(ctx, func() { close(ready) })) }()
		<-ready
		stops = append(stops, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	s.stop = sync.OnceFunc(func() {
		for _, stop := range stops {
			stop()
		}
	})
	t.Cleanup(s.stop)
	return s
}

// write adds lines to the container's log, one a second from minute on.
func (s shipping) write(t *testing.T, minute int, lines ...string) {
	t.Helper()
	f, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, l := range lines {
		if _, err := fmt.Fprintf(f, "2026-11-21T09:%02d:%02dZ stdout F %s\n", minute, i, l); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until the copy ends with that line and the daemon has it in its books.
func (s shipping) await(t *testing.T, last string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(s.copy) // not there yet
		var a logsAnswer
		if err := api.NewClient(s.socket).Get(t.Context(), "/v1/logs", &a); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(string(text), " "+last+"\n") && len(a.Sinks) == 1 && a.Sinks[0].Lag == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q did not come:\n%s", last, text)
		}
	}
}

// bare leaves out the local times that logs tail prints.
func bare(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		_, text, _ := strings.Cut(line, " ")
		b.WriteString(text)
	}
	return b.String()
}

func TestLogsLsShowsWhatRulesDroppedOfEachLog(t *testing.T) {
	t.Parallel()
	s := ship(t, shape.Rule{Match: shape.Match{Name: "web"}, Drop: []shape.Filter{{Match: "healthz"}}, Rate: "1/m"})
	s.write(t, 20, "one", "GET /healthz", "two", "three")
	s.write(t, 25, "four")
	s.await(t, "four")
	out, said, code := fairlead(t, "logs", "ls", "--wide", "--socket", s.socket)
	rows := strings.Split(out, "\n")
	// The rate is known by its effect: a log has what one minute allows, and a record says how many did not go.
	want := []string{"NAME", "SIZE", "SINK", "READ", "ACKED", "BEHIND", "RATE", "DROPPED", "LOST", "PATH"}
	if diff := cmp.Diff(want, strings.Fields(rows[0])); diff != "" || code != 0 {
		t.Fatalf("exit %d, said %q (-want +got):\n%s", code, said, diff)
	}
	var a logsAnswer
	if err := api.NewClient(s.socket).Get(t.Context(), "/v1/logs", &a); err != nil {
		t.Fatal(err)
	}
	d := a.Streams[0].Sinks[0].Dropped
	if d.Rule != 1 || d.Budget == 0 || !strings.Contains(rows[1], fmt.Sprintf("  %d (rate %d)  0B  ", d.Rule+d.Budget, d.Budget)) || !strings.HasSuffix(rows[1], s.log) {
		t.Errorf("%+v are shown as\n%s", d, out)
	}
	// What nobody has seen is marked.
	for want, k := range map[string]logship.StreamLedger{"0B": {}, "2.0KiB": {Lost: 2048}, "2.0KiB+": {Lost: 2048, Whole: 1}} {
		if got := lost(k); got != want {
			t.Errorf("%+v is shown as %s, want %s", k, got, want)
		}
	}
}

func TestLogsTailShowsTheLastLinesAndThoseThatComeOverARotation(t *testing.T) {
	t.Parallel()
	s := ship(t)
	s.write(t, 20, "one", "two", "three", "four")
	s.await(t, "four")
	for _, name := range []string{"web", "c0ff", s.log} {
		out, said, code := fairlead(t, "logs", "tail", name, "-n", "2", "--socket", s.socket)
		if diff := cmp.Diff("three\nfour\n", bare(out)); diff != "" || code != 0 {
			t.Errorf("tail %s: exit %d, said %q (-want +got):\n%s", name, code, said, diff)
		}
	}
	out, said, code := fairlead(t, "logs", "tail", "db", "--socket", s.socket)
	if code != 1 || out != "" || said != "no followed log is called \"db\"; `fairlead logs ls` names them\n" {
		t.Errorf("tail of an unknown container: exit %d, printed %q, said %q", code, out, said)
	}
	// -f goes on until Ctrl-C, so what it stands on is called here.
	var a logsAnswer
	if err := api.NewClient(s.socket).Get(t.Context(), "/v1/logs", &a); err != nil || len(a.Streams) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	shown := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- logship.Peek(ctx, a.Streams[0], 1, true, func(_ time.Time, line string) { shown <- line })
	}()
	if l := <-shown; l != "four" {
		t.Errorf("it began with %q", l)
	}
	s.write(t, 21, "five")
	if l := <-shown; l != "five" {
		t.Errorf("then came %q", l)
	}
	s.write(t, 22, "six")
	if err := os.Rename(s.log, s.log+".1"); err != nil {
		t.Fatal(err)
	}
	s.write(t, 23, "seven")
	if six, seven := <-shown, <-shown; six != "six" || seven != "seven" {
		t.Errorf("over the rotation came %q and %q", six, seven)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLogsResendTellsHowManyLinesOrWhyNone(t *testing.T) {
	t.Parallel()
	s := ship(t)
	s.write(t, 20, "one", "two")
	s.write(t, 40, "three", "four", "five")
	s.await(t, "five")
	resend := func(args ...string) (string, string, int) {
		t.Helper()
		return fairlead(t, append([]string{"logs", "resend", "--socket", s.socket}, args...)...)
	}
	out, said, code := resend("--since", "2026-11-21T09:40:00Z", "web")
	if code != 0 || out != "3 lines of docker/c0ffee00 sent again to copy\n" {
		t.Fatalf("exit %d, printed %q, said %q", code, out, said)
	}
	text, err := os.ReadFile(s.copy)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		got = append(got, strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
	}
	if diff := cmp.Diff([]string{"one", "two", "three", "four", "five", "three", "four", "five"}, got); diff != "" {
		t.Errorf("the copy has (-want +got):\n%s", diff)
	}
	out, _, code = resend("--since", "2026-11-21T09:00:00Z", "--sink", "copy", "--json", "web")
	var sent []logship.Resent
	if err := json.Unmarshal([]byte(out), &sent); err != nil || code != 0 || len(sent) != 1 || sent[0].Acked != 5 {
		t.Errorf("exit %d, printed %q: %v", code, out, err)
	}
	for _, x := range []struct {
		args string
		code int
		says string
	}{
		{"--since 24h db", 1, "resend db: no followed log is called that; `fairlead logs ls` names them\n"},
		{"--since 24h --sink far web", 1, "resend to far: no sink of this log is called that; its lines go to copy\n"},
		{"--since 2126-01-01 web", 1, "resend web: nothing was written since 2126-01-01T00:00:00Z, as far as its sinks have it and its files are there\n"},
		{"--since yesterday web", 2, `--since: expected 90m, 24h, 7d, 2026-11-20 or 2026-11-20T08:00:00Z, found "yesterday"` + "\n"},
		{"web", 2, "expected --since T, see --help\n"},
		{"--since 5m", 2, "expected one CONTAINER, see --help\n"},
	} {
		out, said, code := resend(strings.Fields(x.args)...)
		if code != x.code || out != "" || !strings.Contains(said, x.says) {
			t.Errorf("resend %s: exit %d, printed %q, said %q", x.args, code, out, said)
		}
	}
}

func TestLogsVerifyLooksForItselfWhenNoDaemonRuns(t *testing.T) {
	t.Parallel()
	s := ship(t)
	s.write(t, 20, "one", "two", "three")
	s.await(t, "three")
	s.stop()
	out, said, code := fairlead(t, "logs", "verify", "--config", s.config)
	if code != 0 || !strings.Contains(out, "1 logs, 1 positions") || !strings.HasSuffix(out, ": 0 faults\n") {
		t.Fatalf("exit %d, said %q, printed %s", code, said, out)
	}
	f, err := os.OpenFile(s.log, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("T"), int64(bytes.Index(text, []byte("two")))); err != nil {
		t.Fatal(err)
	}
	out, _, code = fairlead(t, "logs", "verify", "--config", s.config)
	if code != 1 || !strings.Contains(out, "!! "+s.log) || !strings.HasSuffix(out, ": 1 faults\n") {
		t.Errorf("exit %d, printed %s", code, out)
	}
}

func TestLogsLsShowsEachLogAndSink(t *testing.T) {
	t.Parallel()
	s := ship(t)
	s.write(t, 20, "one", "two", "three")
	s.await(t, "three")
	out, said, code := fairlead(t, "logs", "ls", "--wide", "--socket", s.socket)
	fields := strings.Fields(strings.SplitN(out, "\n", 3)[1])
	want := []string{"web", "104B", "copy", "3", "3", "0B", fields[6], "0", "0B", filepath.Clean(s.log)}
	if diff := cmp.Diff(want, fields); diff != "" || code != 0 {
		t.Errorf("exit %d, said %q, printed %s (-want +got):\n%s", code, said, out, diff)
	}
}
