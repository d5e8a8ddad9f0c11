package logship

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
)

func testSpool(t *testing.T, path string) *spool {
	t.Helper()
	sp, err := openSpool(path, func() int64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sp.close() })
	return sp
}

func TestALineThatAKillToreInTheSpoolIsFinishedAndNotRepeated(t *testing.T) {
	t.Parallel()
	whole := []string{"2026-11-21T09:20:00Z stdout F:s=1 one\n", "2026-11-21T09:20:01Z stdout F:s=2 two\n", "2026-11-21T09:20:02Z stdout F:s=3 three\n"}
	for cut := range len(whole[1]) {
		path := filepath.Join(t.TempDir(), "s/log")
		writeFile(t, path, whole[0]+whole[1][:cut])
		sp := testSpool(t, path)
		if c, err := new(journal).cursor(sp); c != "s=1" || err != nil {
			t.Fatalf("cut at %d: cursor %q %v, want that of the last whole line", cut, c, err)
		}
		if err := sp.write(t.Context(), []byte(whole[1]+whole[2])); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); string(b) != strings.Join(whole, "") {
			t.Fatalf("cut at %d: got %q", cut, b)
		}
	}
}

func TestASpoolIsRotatedAndWaitsForTheSlowestSink(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	sp := testSpool(t, path)
	line := append(bytes.Repeat([]byte("x"), 1<<20), '\n')
	for range 9*spoolKeep + 3 {
		if err := sp.write(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := filepath.Glob(path + "*")
	if len(all) != spoolKeep+1 {
		t.Errorf("%d segments, want %d", len(all), spoolKeep+1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sp.lag = func() int64 { cancel(); return spoolBehind + 1 }
	before := sp.size
	if err := sp.write(ctx, line); err == nil || sp.size != before {
		t.Errorf("it wrote while a sink was behind: %v", err)
	}
}

// api is a daemon that gives messages by time, cuts connections, and forgets old ones.
type api struct {
	mu       sync.Mutex
	messages []apiMessage
	each     int // messages until a connection is cut
}

type apiMessage struct {
	at     time.Time
	stderr bool
	text   string
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/json") {
		_, _ = io.WriteString(w, `{"Config":{"Tty":false}}`)
		return
	}
	since := time.Time{}
	if s := r.URL.Query().Get("since"); s != "" {
		var sec, ns int64
		if _, err := fmt.Sscanf(s, "%d.%09d", &sec, &ns); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		since = time.Unix(sec, ns)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	sent := 0
	for _, m := range a.messages {
		if m.at.Before(since) {
			continue
		}
		body := m.at.UTC().Format(time.RFC3339Nano) + " " + m.text
		head := [8]byte{1}
		if m.stderr {
			head[0] = 2
		}
		binary.BigEndian.PutUint32(head[4:], uint32(len(body)))
		_, _ = w.Write(append(head[:], body...))
		if sent++; sent == a.each {
			_, _ = w.Write(head[:5]) // cut within the next message
			return
		}
	}
}

func TestNoLineIsLostOrDoubledWhenTheRuntimesConnectionIsCut(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "fairlead-api") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	a := &api{}
	server := &http.Server{Handler: a}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	at := time.Date(2026, 11, 21, 9, 20, 0, 0, time.UTC)
	var want []string
	for i := range 500 {
		if i%7 == 0 {
			at = at.Add(300 * time.Millisecond) // many have the same time
		}
		m := apiMessage{at: at, stderr: i%3 == 0, text: fmt.Sprintf("line %d\n", i/2)} // some are equal in all
		if i%5 == 0 {
			m.at = at.Add(-50 * time.Microsecond) // and some older than the one before
		}
		if i%50 == 0 {
			m.text = strings.Repeat("x", enginePiece)
		}
		a.messages = append(a.messages, m)
		std, part := "stdout", "F"
		if m.stderr {
			std = "stderr"
		}
		if !strings.HasSuffix(m.text, "\n") {
			part = "P"
		}
		want = append(want, fmt.Sprintf("%s %s %s %s", m.at.Format(time.RFC3339Nano), std, part, strings.TrimSuffix(m.text, "\n")))
	}
	path := filepath.Join(dir, "spool/log")
	e := &engine{socket: l.Addr().String(), id: "c"}
	for i := 0; ; i++ {
		if i > 50 {
			t.Fatal("lines come again and again")
		}
		a.mu.Lock()
		if a.each = 60 + i%13; i == 5 {
			a.messages = a.messages[30:] // rotated away; the spool has them
		}
		a.mu.Unlock()
		before := len(lines(path))
		sp := testSpool(t, path)
		if err := e.pump(t.Context(), sp); err != nil {
			t.Fatal(err)
		}
		if len(lines(path)) == before {
			break
		}
	}
	got := lines(path)
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("line %d of %d is not as it should be; %d are there", i, len(want), len(got))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

func TestWhichContainersAreReadThroughWhat(t *testing.T) {
	t.Parallel()
	runtimes := []container.RuntimeState{{Name: "docker", Socket: "/run/docker.sock"}}
	for _, tc := range []struct {
		runtime, driver string
		format          container.LogFormat
		path, want      string
	}{
		{"docker", "local", "", "", "*logship.engine"}, {"docker", "fluentd", "", "", "*logship.engine"}, {"docker", "none", "", "", "<nil>"},
		{"docker", "json-file", container.DockerJSON, "/x", "<nil>"}, {"docker@/other.sock", "local", "", "", "<nil>"},
		{"podman", "journald", "", "", "*logship.journal"}, {"podman", "k8s-file", container.CRI, "/x", "<nil>"}, {"podman", "none", "", "", "<nil>"},
		{"containerd", "binary", "", "", "<nil>"}, {"cri", "cri", container.CRI, "/x", "<nil>"},
	} {
		c := &container.Container{Runtime: container.Runtime(tc.runtime), Log: container.Log{Driver: tc.driver, Format: tc.format, Path: tc.path}}
		src, last, ok := unread(c, runtimes, "")
		if got := fmt.Sprintf("%T", src); got != tc.want || ok != (src != nil) || (last != nil) != (tc.runtime == "podman" && ok) {
			t.Errorf("%s %s: read by %s, want %s", tc.runtime, tc.driver, got, tc.want)
		}
	}
}

func TestAJournalThatCannotBeSelectedIsRefused(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.JournalDirectory = "journal"
	c.Journal = []Journal{{}, {Match: []string{"nginx", "PRIORITY=3"}}, {Unit: "a.service"}, {Unit: "a.service"}}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range []string{`logship.journal[0].unit: ""`, `logship.journal[1].name: ""`, `logship.journal[1].match[0]: "nginx" is not valid, expected FIELD=VALUE`,
		`logship.journal[3].name: "a.service"`, `logship.journal_directory: "journal"`} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no problem is %s; got\n%v", w, err)
		}
	}
}

func TestAHostWithoutJournalctlSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Journal{Unit: "x"}.source("").pump(t.Context(), testSpool(t, filepath.Join(t.TempDir(), "log")))
	if err == nil || !strings.HasPrefix(err.Error(), "journalctl is not installed") {
		t.Errorf("got %v", err)
	}
}
