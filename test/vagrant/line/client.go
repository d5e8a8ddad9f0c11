package line

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Client is the story's end. Its methods may be called concurrently.
type Client struct {
	w writer
	r io.Reader

	mu    sync.Mutex
	next  int
	calls map[int]*call
	boot  string        // of the last greeting
	told  chan struct{} // closed and replaced at every greeting
	ended error
}

// call is a command that runs in the machine.
type call struct {
	cmd  Command
	done chan error
	code int
}

// Command is what to run. Stdout and Stderr may be nil; they are written to by Client.Run alone.
type Command struct {
	Argv           []string
	Stdin          []byte
	Stdout, Stderr io.Writer
}

// NewClient gives a client that does nothing until Run.
func NewClient(rw io.ReadWriter) *Client {
	return &Client{w: writer{w: rw}, r: rw, calls: map[int]*call{}, told: make(chan struct{})}
}

// Run takes what the machine says until the wire ends, and gives why. All commands have ended with ErrLost then.
func (c *Client) Run() error {
	err := each(c.r, c.take)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = err
	c.loseAll()
	close(c.told)
	return err
}

func (c *Client) take(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Boot != "" {
		c.loseAll()
		c.boot = m.Boot
		close(c.told)
		c.told = make(chan struct{})
		return
	}
	call := c.calls[m.ID]
	if call == nil {
		return // of another boot
	}
	var errs []error
	for _, o := range []struct {
		to io.Writer
		b  []byte
	}{{call.cmd.Stdout, m.Stdout}, {call.cmd.Stderr, m.Stderr}} {
		if o.to != nil && len(o.b) > 0 {
			_, err := o.to.Write(o.b)
			errs = append(errs, err)
		}
	}
	if m.Error != "" {
		errs = append(errs, errors.New(m.Error))
	}
	if err := errors.Join(errs...); err != nil || m.Exit != nil {
		if m.Exit != nil {
			call.code = *m.Exit
		}
		delete(c.calls, m.ID)
		call.done <- err
	}
}

func (c *Client) loseAll() {
	for id, call := range c.calls {
		delete(c.calls, id)
		call.done <- ErrLost
	}
}

// Exec runs a command to its end and gives its exit code. When ctx ends first, the command is killed.
func (c *Client) Exec(ctx context.Context, cmd Command) (int, error) {
	call := &call{cmd: cmd, done: make(chan error, 1)}
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return 0, c.ended
	}
	c.next++
	id := c.next
	c.calls[id] = call
	c.mu.Unlock()
	if err := c.w.send(message{ID: id, Argv: cmd.Argv, Stdin: cmd.Stdin}); err != nil {
		return 0, err
	}
	select {
	case err := <-call.done:
		return call.code, err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
		return 0, errors.Join(fmt.Errorf("killed: %w", context.Cause(ctx)), c.w.send(message{ID: id, Kill: true}))
	}
}

// Boot waits until the machine has greeted with another boot id than before, and gives it.
func (c *Client) Boot(ctx context.Context, before string) (string, error) {
	for {
		c.mu.Lock()
		boot, told, ended := c.boot, c.told, c.ended
		c.mu.Unlock()
		if boot != "" && boot != before {
			return boot, nil
		}
		if ended != nil {
			return "", ended
		}
		select {
		case <-told:
		case <-ctx.Done():
			return "", fmt.Errorf("no greeting from the machine: %w", context.Cause(ctx))
		}
	}
}
