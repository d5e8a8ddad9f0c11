package line

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// wire joins a client with a machine whose end can be cut.
func wire(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	c := NewClient(here)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	t.Cleanup(func() { here.Close(); there.Close(); <-ended })
	return c, there
}

// serve has a machine at the other end that has greeted.
func serve(t *testing.T) *Client {
	t.Helper()
	c, machine := wire(t)
	go func() { _ = Serve(machine, "first") }()
	if _, err := c.Boot(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACommandGivesItsOutputAndItsExitCode(t *testing.T) {
	t.Parallel()
	c := serve(t)
	var out, errs bytes.Buffer
	code, err := c.Exec(t.Context(), Command{Argv: []string{"sh", "-c", "cat; echo to stderr >&2; exit 3"}, Stdin: []byte("in\nput"), Stdout: &out, Stderr: &errs})
	if code != 3 || err != nil || out.String() != "in\nput" || errs.String() != "to stderr\n" {
		t.Errorf("got %d, %v, %q, %q; want 3 and what was written", code, err, &out, &errs)
	}
	if code, err = c.Exec(t.Context(), Command{Argv: []string{"sh", "-c", "kill -9 $$"}}); code != 137 || err != nil {
		t.Errorf("killed by signal 9: got %d, %v, want 137", code, err)
	}
	if _, err = c.Exec(t.Context(), Command{Argv: []string{"/no/such/program"}}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no such program: got %v", err)
	}
}

func TestACommandThatTakesTooLongIsKilledInTheMachine(t *testing.T) {
	t.Parallel()
	c := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	// The command says when it runs, so that the end comes in the middle.
	r, w := io.Pipe()
	go func() { _, _ = r.Read(make([]byte, 1)); cancel() }()
	_, err := c.Exec(ctx, Command{Argv: []string{"sh", "-c", "echo; exec sleep 1000"}, Stdout: w})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that the context ended", err)
	}
	// The machine goes on, and nothing of the killed one is left in it.
	if code, err := c.Exec(t.Context(), Command{Argv: []string{"sh", "-c", "until ! pgrep -x -P $PPID sleep; do :; done"}}); code != 0 || err != nil {
		t.Errorf("got %d, %v; want that the sleep ends", code, err)
	}
}

func TestAResetInTheMiddleOfALineLosesTheCommandAndNothingElse(t *testing.T) {
	t.Parallel()
	c, machine := wire(t)
	go func() {
		in := make([]byte, 1000)
		_, _ = machine.Write([]byte("\n{\"boot\":\"first\"}\n"))
		_, _ = machine.Read(in)
		_, _ = machine.Write([]byte("\n{\"id\":1,\"stdout\":\"aGFs"))
		_ = Serve(machine, "second")
	}()
	first, err := c.Boot(t.Context(), "")
	if first != "first" || err != nil {
		t.Fatalf("got %q, %v", first, err)
	}
	if _, err := c.Exec(t.Context(), Command{Argv: []string{"sleep", "1000"}}); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want %v", err, ErrLost)
	}
	if second, err := c.Boot(t.Context(), first); second != "second" || err != nil {
		t.Errorf("got %q, %v", second, err)
	}
	if code, err := c.Exec(t.Context(), Command{Argv: []string{"true"}}); code != 0 || err != nil {
		t.Errorf("after the reset: got %d, %v", code, err)
	}
}
