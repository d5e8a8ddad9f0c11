package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-dev/fairlead/agent"
)

// socketIn gives a path in a directory of the test's own that is short enough for a socket.
func socketIn(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

// serving runs part until the test ends or stop is called, and returns when it is ready.
func serving(t testing.TB, run func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, result := make(chan struct{}), make(chan error, 1)
	go func() { result <- run(agent.WithReady(ctx, func() { close(ready) })) }()
	stop = sync.OnceValue(func() error { cancel(); return <-result })
	t.Cleanup(func() { _ = stop() })
	select {
	case <-ready:
	case err := <-result:
		cancel()
		t.Fatalf("ended before it was ready: %v", err)
	}
	return stop
}

// logBuffer is a log that several goroutines write and the test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *logBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestEveryRequestIsAnsweredInJSON(t *testing.T) {
	t.Parallel()
	var log logBuffer
	s := New(socketIn(t), "", slog.New(slog.NewTextHandler(&log, nil)))
	type answer struct{ Name, Value string }
	s.Handle("GET /v1/good/{name}", func(r *http.Request) (any, error) { return answer{r.PathValue("name"), "a<b"}, nil })
	s.Handle("GET /v1/nothing", func(*http.Request) (any, error) { return nil, nil })
	s.Handle("GET /v1/absent", func(*http.Request) (any, error) {
		return nil, fmt.Errorf("show network: %w", Errorf(http.StatusNotFound, "no network %s", "blue"))
	})
	s.Handle("GET /v1/broken", func(*http.Request) (any, error) { return nil, errors.New("read state: permission denied") })
	s.Handle("GET /v1/panic", func(*http.Request) (any, error) { panic("nil map") })
	s.Handle("GET /v1/odd", func(*http.Request) (any, error) { return make(chan int), nil })
	s.Handle("POST /v1/echo", func(r *http.Request) (any, error) {
		var in answer
		return &in, Body(r, &in)
	})
	serving(t, s.Run)
	c := NewClient(s.socket)

	for _, call := range []struct {
		method, path string
		in           any
		want         answer
		status       int
		message      string
	}{
		{method: "GET", path: "/v1/good/x", want: answer{"x", "a<b"}},
		{method: "GET", path: "/v1/nothing"},
		{method: "POST", path: "/v1/echo", in: answer{"n", "v"}, want: answer{"n", "v"}},
		{method: "POST", path: "/v1/echo", in: map[string]int{"Nmae": 1}, status: 400, message: `read request: json: unknown field "Nmae"`},
		{method: "POST", path: "/v1/echo", status: 400, message: "read request: EOF"},
		{method: "POST", path: "/v1/echo", in: answer{Name: strings.Repeat("x", maxRequest)}, status: 400, message: "read request: http: request body too large"},
		{method: "GET", path: "/v1/absent", status: 404, message: "show network: no network blue"},
		{method: "GET", path: "/v1/broken", status: 500, message: "read state: permission denied"},
		{method: "GET", path: "/v1/panic", status: 500, message: "the agent failed to answer GET /v1/panic (its log says why)"},
		{method: "GET", path: "/v1/odd", status: 500, message: "encode answer: json: unsupported type: chan int"},
		{method: "GET", path: "/v1/unknown", status: 404, message: "Not Found: GET /v1/unknown"},
		{method: "POST", path: "/v1/panic", status: 405, message: "Method Not Allowed: POST /v1/panic"},
	} {
		var got answer
		err := c.do(t.Context(), call.method, call.path, call.in, &got)
		if call.status == 0 {
			if err != nil || got != call.want {
				t.Errorf("%s %s: got %+v, %v, want %+v", call.method, call.path, got, err, call.want)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Status != call.status || e.Message != call.message {
			t.Errorf("%s %s: got %#v, want %d %s", call.method, call.path, err, call.status, call.message)
		}
	}
	if !strings.Contains(log.String(), "api_test.go") {
		t.Errorf("the stack of the panic was not logged:\n%s", log.String())
	}
}

func TestRequestsInFlightAreAnsweredAtTheStop(t *testing.T) {
	t.Parallel()
	s := New(socketIn(t), "", quiet())
	inside, finish := make(chan struct{}), make(chan struct{})
	s.Handle("GET /slow", func(r *http.Request) (any, error) {
		close(inside)
		select {
		case <-finish:
			return "done", nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	})
	stop := serving(t, s.Run)
	answered := make(chan error, 1)
	var got string
	go func() { answered <- NewClient(s.socket).Get(context.Background(), "/slow", &got) }()
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for !errors.Is(NewClient(s.socket).Get(t.Context(), "/new", nil), ErrNotRunning) { // new ones are taken no more
	}
	close(finish)
	if err := <-answered; err != nil || got != "done" {
		t.Errorf("the request in flight got %q, %v", got, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestServerMayRunAgain(t *testing.T) {
	t.Parallel()
	s := New(socketIn(t), "", quiet())
	s.Handle("GET /x", func(*http.Request) (any, error) { return "x", nil })
	for range 3 {
		stop := serving(t, s.Run)
		if err := NewClient(s.socket).Get(t.Context(), "/x", nil); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(s.socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket was left: %v", err)
		}
	}
}

func TestSecondAgentOnASocketIsRefusedByName(t *testing.T) {
	t.Parallel()
	s := New(socketIn(t), "", quiet())
	s.Handle("GET /x", func(*http.Request) (any, error) { return "x", nil })
	serving(t, s.Run)
	want := fmt.Sprintf("open operator API: another fairlead agent answers on %s (pid %d)", s.socket, os.Getpid())
	for _, lockFile := range []string{"there", "removed by somebody"} {
		err := New(s.socket, "", quiet()).Run(t.Context())
		if !errors.Is(err, ErrInUse) || err.Error() != want {
			t.Errorf("lock file %s: got %v, want %s", lockFile, err, want)
		}
		if err := NewClient(s.socket).Get(t.Context(), "/x", nil); err != nil {
			t.Errorf("lock file %s: the first agent does not answer any more: %v", lockFile, err)
		}
		if err := os.Remove(s.socket + ".lock"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOfManyAgentsThatStartAtOnceOneWins(t *testing.T) {
	t.Parallel()
	socket := socketIn(t)
	leaveStale(t, socket)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const agents = 8
	won, results := make(chan struct{}, agents), make(chan error, agents)
	for range agents {
		go func() {
			results <- New(socket, "", quiet()).Run(agent.WithReady(ctx, func() { won <- struct{}{} }))
		}()
	}
	for range agents - 1 {
		if err := <-results; !errors.Is(err, ErrInUse) {
			t.Errorf("a loser got %v", err)
		}
	}
	<-won
	cancel()
	if err := <-results; err != nil || len(won) != 0 {
		t.Errorf("the winner got %v; %d more won", err, len(won))
	}
}

func TestAgentThatIsStillOpeningItsSocketIsSeenByItsLock(t *testing.T) {
	t.Parallel()
	s := New(socketIn(t), "", quiet())
	lock, err := takeLock(s.socket) // the other has come this far
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := s.Run(agent.WithReady(ctx, cancel)); !errors.Is(err, ErrInUse) || !strings.HasSuffix(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if err := lock.Close(); err != nil { // it dies
		t.Fatal(err)
	}
	serving(t, s.Run)
}

// leaveStale leaves a socket as kill -9 does.
func leaveStale(t *testing.T, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsReplacedAndAForeignFileIsNot(t *testing.T) {
	t.Parallel()
	s := New(socketIn(t), "", quiet())
	leaveStale(t, s.socket)
	stop := serving(t, s.Run)
	if st, err := os.Stat(s.socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket has %v, %v", st.Mode(), err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(s.socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("over a foreign file: %v", err)
	}
	if b, err := os.ReadFile(s.socket); string(b) != "precious" {
		t.Errorf("the foreign file now holds %q, %v", b, err)
	}
}

func TestPathThatIsTooLongIsExplained(t *testing.T) {
	t.Parallel()
	long := filepath.Join(os.TempDir(), strings.Repeat("x", 120), "agent.sock")
	for what, err := range map[string]error{"server": New(long, "", quiet()).Run(t.Context()), "client": NewClient(long).Get(t.Context(), "/", nil)} {
		if err == nil || !strings.Contains(err.Error(), "the kernel takes 107: choose a shorter run_dir") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestOnlyRootTheAgentsUserAndTheGroupArePermitted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		who   peer
		group string
		gid   uint32
		has   bool
		want  string // of the refusal
	}{
		{who: peer{known: true, uid: 0}},
		{who: peer{known: true, uid: 77}}, // the agent's own
		{who: peer{known: true, uid: 5, gid: 9}, group: "fairlead", gid: 9, has: true},
		{who: peer{known: true, uid: 5, gid: 1, groups: []uint32{3, 9}}, group: "fairlead", gid: 9, has: true},
		{who: peer{}, want: "the kernel does not say who you are"},
		{who: peer{known: true, uid: 5, pid: 8}, want: "user 5 (pid 8) may not use the agent: only root may"},
		{who: peer{known: true, uid: 5, pid: 8, gid: 0}, group: "fairlead", want: "user 5 (pid 8) may not use the agent: only root and members of group fairlead may, and this host has no such group"},
		{who: peer{known: true, uid: 5, pid: 8, groups: []uint32{3}}, group: "fairlead", gid: 9, has: true, want: "user 5 (pid 8) may not use the agent: only root and members of group fairlead may"},
	} {
		got := ""
		if err := permit(c.who, 77, c.group, c.gid, c.has); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: got %q, want %q", c.who, got, c.want)
		}
	}
}

func TestPeerIsWhoTheKernelSays(t *testing.T) {
	t.Parallel()
	s := New(socketIn(t), "", quiet())
	var got peer
	s.Handle("GET /who", func(r *http.Request) (any, error) { got = peerOf(r.Context()); return nil, nil })
	serving(t, s.Run)
	if err := NewClient(s.socket).Get(t.Context(), "/who", nil); err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if !got.known || int(got.pid) != os.Getpid() || int(got.uid) != os.Getuid() || int(got.gid) != os.Getgid() || len(got.groups) != len(groups) {
		t.Errorf("peer %+v, we are pid %d uid %d gid %d groups %v", got, os.Getpid(), os.Getuid(), os.Getgid(), groups)
	}
}
