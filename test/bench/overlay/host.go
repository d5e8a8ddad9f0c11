package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// namespace is a network namespace that nobody knows by name: a host, or a container.
type namespace struct {
	name string
	file *os.File
}

// newNamespace makes one with its loopback up.
func newNamespace(ctx context.Context, name string) (*namespace, error) {
	n := &namespace{name: name}
	err := host.OnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	_, err = n.sh(ctx, "ip link set lo up")
	return n, err
}

func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// close lets go of it; it ends with its last process.
func (n *namespace) close() { _ = n.file.Close() }

// within runs f on a thread inside.
func (n *namespace) within(f func() error) error {
	return host.OnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", n.name, err)
		}
		return f()
	})
}

// command is a program inside, which ends with ctx and with us.
func (n *namespace) command(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.path(), "--"}, argv...)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 5 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// output runs a program inside and gives what it prints.
func (n *namespace) output(ctx context.Context, argv ...string) (string, error) {
	c := n.command(ctx, argv...)
	var fault bytes.Buffer
	c.Stderr = &fault
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w: %s%s", n.name, strings.Join(argv, " "), err, bytes.TrimSpace(fault.Bytes()), bytes.TrimSpace(out))
	}
	return string(out), nil
}

func (n *namespace) sh(ctx context.Context, script string) (string, error) {
	return n.output(ctx, "sh", "-ec", script)
}

// pair is two hosts on one wire.
type pair [2]*namespace

// addresses of a pair's hosts on the wire; they are the same in each pair, which never meet.
var addresses = [2]string{"192.0.2.11", "192.0.2.12"}

const under = "under"

func newPair(ctx context.Context, name string) (p pair, err error) {
	for i := range p {
		if p[i], err = newNamespace(ctx, fmt.Sprintf("%s%d", name, i+1)); err != nil {
			return p, err
		}
	}
	if _, err = p[0].sh(ctx, "ip link add "+under+" type veth peer name "+under+" netns "+p[1].path()); err != nil {
		return p, err
	}
	for i, n := range p {
		if _, err = n.sh(ctx, fmt.Sprintf("ip addr add %s/24 dev %s; ip link set %[2]s up", addresses[i], under)); err != nil {
			return p, err
		}
	}
	return p, nil
}

// until waits for something to be so.
func until(ctx context.Context, what string, patience time.Duration, so func() (bool, error)) error {
	var last error
	for began := time.Now(); time.Since(began) < patience; {
		ok, err := so()
		if ok {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.Join(fmt.Errorf("%s: not within %s", what, patience), last)
}

func (p pair) close() {
	for _, n := range p {
		if n != nil {
			n.close()
		}
	}
}
