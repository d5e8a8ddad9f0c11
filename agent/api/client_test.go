package api

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
)

func TestDeadAgentGivesOneClearError(t *testing.T) {
	t.Parallel()
	socket := socketIn(t)
	want := "fairlead agent is not running (no answer on " + socket + ")"
	check := func(what string) {
		t.Helper()
		err := NewClient(socket).Get(t.Context(), "/v1/status", nil)
		if !errors.Is(err, ErrNotRunning) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	check("no socket")
	leaveStale(t, socket)
	check("stale socket")
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	socket += "/deeper/agent.sock"
	want = "fairlead agent is not running (no answer on " + socket + ")"
	check("no directory")
}

// stranger accepts one connection and does with it what answer does.
func stranger(t *testing.T, answer func(net.Conn)) (socket string) {
	t.Helper()
	socket = socketIn(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 4096)) // the request; whatever it is
		answer(conn)
	}()
	return socket
}

func TestAgentThatHangsUpOrTalksNonsenseIsTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ says, want string }{
		"hangs up":       {"", "hung up before it had answered"},
		"half an answer": {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "hung up before it had answered"},
		"not JSON":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "understand the agent's answer on /x"},
		"foreign error":  {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nhi", "the agent answered 502 Bad Gateway"},
	} {
		socket := stranger(t, func(conn net.Conn) { _, _ = conn.Write([]byte(c.says)) })
		var out map[string]string
		if err := NewClient(socket).Get(t.Context(), "/x", &out); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClientDoesNotWaitLongerThanItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	impatient := errors.New("two seconds have passed")
	socket := stranger(t, func(net.Conn) { cancel(impatient); <-release })
	err := NewClient(socket).Get(ctx, "/x", nil)
	close(release)
	if !errors.Is(err, impatient) || !strings.HasPrefix(err.Error(), "wait for the fairlead agent on ") {
		t.Errorf("got %v", err)
	}
}
