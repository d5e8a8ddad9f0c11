package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// Node is one host with what runs on it.
type Node struct {
	*sim.Host
	demo       *Demo
	block      string // the addresses of its containers
	extra      bool   // a second file sink is configured
	containerd *daemons.ContainerdDaemon
	rsyslog    *daemons.RsyslogDaemon
	agent      *Agent
	containers []*Container
}

// conflist is all that containerd is told about Fairlead.
const conflist = `{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"fairlead-cni"}]}` + "\n"

// prepare starts what a host runs before Fairlead is installed.
func (n *Node) prepare(ctx context.Context) (err error) {
	for _, dir := range []string{"containerd", "rsyslog"} {
		if err := os.MkdirAll(filepath.Join(n.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	n.containerd, err = daemons.Containerd(ctx, daemons.Options{
		Dir: filepath.Join(n.Dir, "containerd"), Prefix: n.Prefix(), Keep: n.demo.keep,
		Root: "/var/lib/containerd", State: "/run/containerd", Address: "/run/containerd/containerd.sock",
	})
	if err != nil {
		return err
	}
	if _, err := n.ctr(ctx, "image", "import", n.demo.image); err != nil {
		return err
	}
	n.rsyslog, err = daemons.Rsyslog(ctx, daemons.Options{Dir: filepath.Join(n.Dir, "rsyslog"), Prefix: n.Prefix(), Keep: n.demo.keep})
	return err
}

// install does what `make install` does: program, conflist, configuration.
func (n *Node) install() error {
	if err := errors.Join(os.MkdirAll(n.Path("/opt/cni/bin"), 0o755), os.MkdirAll(n.Path("/etc/cni/net.d"), 0o755)); err != nil {
		return err
	}
	plugin, err := os.ReadFile(filepath.Join(n.demo.bin, "fairlead-cni"))
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(n.Path("/opt/cni/bin/fairlead-cni"), plugin, 0o755),
		os.WriteFile(n.Path("/etc/cni/net.d/10-fairlead.conflist"), []byte(conflist), 0o644),
		n.configure())
}

// configure writes the agent's configuration.
func (n *Node) configure() error {
	var b strings.Builder
	fmt.Fprintf(&b, "node: {name: %s, address: %s}\n", n.Name, n.Address)
	fmt.Fprintf(&b, "overlay:\n  store: static\n  peers:\n")
	for _, p := range n.demo.nodes {
		fmt.Fprintf(&b, "    - {name: %s, address: %s, blocks: [%s]}\n", p.Name, p.Address, p.block)
	}
	fmt.Fprintf(&b, "  networks:\n    - {name: blue, cidr: 10.42.0.0/16, vni: 42, path: vxlan}\n")
	fmt.Fprintf(&b, "logship:\n  sinks:\n    - {name: central, type: syslog, address: \"tcp://%s\"}\n", n.rsyslog.Address)
	for _, s := range n.fileSinks() {
		fmt.Fprintf(&b, "    - {name: %s, type: file, path: %s}\n", s, sinkPath(s))
	}
	if n == n.demo.nodes[0] { // where the steps volume and orphans play
		fmt.Fprintf(&b, "volumes:\n  directories: [{name: odd, path: %s}]\n  repositories: [{name: local, path: %s}]\n", oddPath, repositoryPath)
		fmt.Fprintf(&b, "orphans: {grace: %s}\n", grace)
	}
	return os.WriteFile(n.Path(configPath), []byte(b.String()), 0o644)
}

const configPath = "/etc/fairlead/fairlead.yaml"

func (n *Node) fileSinks() []string {
	if n.extra {
		return []string{"copy", "extra"}
	}
	return []string{"copy"}
}

func sinkPath(sink string) string { return "/var/log/fairlead/" + sink + ".log" }

// ctr is containerd's own client, run on the host.
func (n *Node) ctr(ctx context.Context, args ...string) (string, error) {
	return n.Run(ctx, "ctr", args...)
}

// fairlead is the operator's command, run on the host.
func (n *Node) fairlead(ctx context.Context, args ...string) (string, error) {
	return n.Run(ctx, filepath.Join(n.demo.bin, "fairlead"), args...)
}

// end stops containers, agent and daemons in the order in which a person would.
func (n *Node) end(ctx context.Context) error {
	var errs []error
	for _, c := range n.containers {
		errs = append(errs, c.stop(ctx))
	}
	if n.agent != nil {
		errs = append(errs, n.agent.stop())
	}
	if n.rsyslog != nil {
		errs = append(errs, n.rsyslog.Stop(ctx))
	}
	if n.containerd != nil {
		errs = append(errs, n.containerd.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Agent is a running `fairlead agent`.
type Agent struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// startAgent starts the agent and waits until it says READY as it would to systemd (sd_notify(3)); it gives how long
// that took.
func (n *Node) startAgent(ctx context.Context) (time.Duration, error) {
	path := filepath.Join(n.Dir, "notify")
	if err := os.RemoveAll(path); err != nil {
		return 0, err
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return 0, err
	}
	defer notify.Close()
	a := &Agent{done: make(chan struct{}), log: filepath.Join(n.Dir, "agent.log")}
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	// Not bound to ctx: the agent is ended by stop or by kill, and outlives the demo with KEEP=1.
	a.cmd = n.Command(context.WithoutCancel(ctx), filepath.Join(n.demo.bin, "fairlead"), "agent")
	a.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	began := time.Now()
	if err := a.cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		_ = a.cmd.Wait() // how it ended is in ProcessState
		close(a.done)
	}()
	n.agent = a
	ready := make(chan error, 1)
	go func() { ready <- awaitReady(notify) }()
	select {
	case err := <-ready:
		if err != nil {
			return 0, fmt.Errorf("agent did not say that it is ready: %w; its log ends with: %s", err, tail(a.log))
		}
		return time.Since(began), nil
	case <-a.done:
		return 0, fmt.Errorf("agent ended: %s; its log ends with: %s", a.cmd.ProcessState, tail(a.log))
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func awaitReady(notify *net.UnixConn) error {
	if err := notify.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		k, err := notify.Read(buf)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(buf[:k]) {
			if string(bytes.TrimSpace(line)) == "READY=1" {
				return nil
			}
		}
	}
}

// kill ends the agent as a crash would.
func (a *Agent) kill() error {
	if err := a.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill agent: %w", err)
	}
	<-a.done
	return nil
}

// stop ends the agent as systemd would.
func (a *Agent) stop() error {
	select {
	case <-a.done:
		return nil
	default:
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop agent: %w", err)
	}
	select {
	case <-a.done:
		if code := a.cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("agent ended with exit %d after SIGTERM: %s", code, tail(a.log))
		}
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("agent did not end within 20 s of SIGTERM"), a.kill())
	}
}

// tail gives the last lines of a log for an error message.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
