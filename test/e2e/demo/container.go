package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// Container is one container, started by `ctr run --cni`. That ctr stays in the foreground for as long as the container
// runs: it is what calls CNI DEL at the end (containerd 1.6 does not do it for detached ones).
type Container struct {
	ID   string
	Addr string // as the container's own eth0 has it

	node *Node
	run  *exec.Cmd
	said string // file with what ctr said
	done chan struct{}
}

// The limits that every container is given, to be found again in the scrape.
const (
	memoryLimit = 96 << 20
	cpuQuota    = 150_000
	cpuPeriod   = 100_000
)

// start runs the container and waits until it has a process with an eth0.
func (n *Node) start(ctx context.Context, id string) (*Container, error) {
	c := &Container{ID: id, node: n, said: filepath.Join(n.Dir, "ctr-run-"+id+".log"), done: make(chan struct{})}
	traffic := filepath.Join(n.demo.bin, "traffic")
	c.run = n.Command(context.WithoutCancel(ctx), "ctr", "run", "--rm", "--cni",
		"--log-uri", "file:///var/log/containers/"+id+".log",
		"--label", "fairlead.logs=/var/log/app.log",
		"--memory-limit", fmt.Sprint(memoryLimit), "--cpu-quota", fmt.Sprint(cpuQuota), "--cpu-period", fmt.Sprint(cpuPeriod),
		"--cgroup", n.Cgroup+"/"+id,
		"--mount", "type=bind,src="+traffic+",dst=/bin/traffic,options=rbind:ro",
		daemons.BusyboxName, id, "sleep", "86400")
	said, err := os.Create(c.said)
	if err != nil {
		return nil, err
	}
	defer said.Close()
	c.run.Stdout, c.run.Stderr = said, said
	if err := c.run.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.run.Wait() // how it ended is in ProcessState
		close(c.done)
	}()
	n.containers = append(n.containers, c)
	deadline := time.After(20 * time.Second)
	for {
		out, err := c.exec(ctx, "sh", "-c", "mkdir -p /var/log /srv; ip -o -4 addr show dev eth0")
		if fields := strings.Fields(out); err == nil && len(fields) > 3 {
			c.Addr, _, _ = strings.Cut(fields[3], "/")
			return c, nil
		}
		select {
		case <-c.done:
			return nil, fmt.Errorf("start %s: ctr run: %s: %s", id, c.run.ProcessState, tail(c.said))
		case <-deadline:
			return nil, fmt.Errorf("start %s: it has no eth0 with an address after 20 s: %s: %w", id, out, err)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(30 * time.Millisecond): // ctr run tells nobody when the task runs
		}
	}
}

// stop kills the container's process and waits for ctr, which calls CNI DEL and removes the container.
func (c *Container) stop(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if _, err := c.node.ctr(ctx, "task", "kill", "-s", "SIGKILL", c.ID); err != nil {
		return errors.Join(err, c.run.Process.Kill())
	}
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("stop %s: ctr run did not end within 20 s", c.ID), c.run.Process.Kill())
	}
	if said := tail(c.said); said != "" {
		return fmt.Errorf("stop %s: ctr run said: %s", c.ID, said)
	}
	return nil
}

var execs atomic.Int64

func (c *Container) execArgs(args []string) []string {
	return append([]string{"task", "exec", "--exec-id", fmt.Sprintf("x%d", execs.Add(1)), c.ID}, args...)
}

// exec runs a command in the container to its end and gives its stdout.
func (c *Container) exec(ctx context.Context, args ...string) (string, error) {
	return c.node.ctr(ctx, c.execArgs(args)...)
}

func (c *Container) String() string { return c.node.Name + "/" + c.ID }

// Load is a traffic command that runs in a container until it is ended.
type Load struct {
	cmd            *exec.Cmd
	what           string
	stdout, stderr bytes.Buffer
}

// load starts `traffic args` in the container.
func (c *Container) load(ctx context.Context, args ...string) (*Load, error) {
	l := &Load{what: c.String() + ": traffic " + strings.Join(args, " ")}
	l.cmd = c.node.Command(ctx, "ctr", c.execArgs(append([]string{"traffic"}, args...))...)
	l.cmd.Stdout, l.cmd.Stderr = &l.stdout, &l.stderr
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", l.what, err)
	}
	return l, nil
}

// stop asks the command to end, through ctr, which forwards the signal; wait then gives its report.
func (l *Load) stop() error { return l.cmd.Process.Signal(syscall.SIGTERM) }

// wait waits for the end and reads the report into v.
func (l *Load) wait(v any) error {
	if err := l.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s %s", l.what, err, bytes.TrimSpace(l.stdout.Bytes()), bytes.TrimSpace(l.stderr.Bytes()))
	}
	if err := json.Unmarshal(l.stdout.Bytes(), v); err != nil {
		return fmt.Errorf("%s: read report %q: %w", l.what, l.stdout.String(), err)
	}
	return nil
}

// report runs a traffic command that ends by itself and reads its report into v.
func (c *Container) report(ctx context.Context, v any, args ...string) error {
	l, err := c.load(ctx, args...)
	if err != nil {
		return err
	}
	return l.wait(v)
}
