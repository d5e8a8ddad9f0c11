// Package drivers points the CNI suite at real plugins: fairlead, with an agent for each host, and the reference
// plugins of the CNI project. They own nothing but the processes that they start, which end with the one who started
// them.
package drivers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	cni "github.com/fairlead-dev/fairlead/test/e2e/cni"
)

// Fairlead is our plugin; bin is the directory of fairlead and fairlead-cni.
func Fairlead(bin string) cni.Plugin { return FairleadWith(bin, func() []string { return nil }) }

// FairleadWith is Fairlead with more environment for each agent that is started.
func FairleadWith(bin string, env func() []string) cni.Plugin {
	f := fairlead{bin, env}
	return cni.Plugin{
		Name: "fairlead", Path: []string{bin},
		Conflist: func(h *cni.Host) string {
			return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"suite","plugins":[{"type":"fairlead-cni","socket":"%s/run/cni.sock",
				"capabilities":{"portMappings":true,"ips":true,"mac":true,"io.kubernetes.cri.pod-annotations":true}}]}`, h.Dir)
		},
		Fixed:  func(n int) string { return fmt.Sprintf("10.42.9.%d", n) },
		Start:  f.start,
		Leases: f.leases,
	}
}

type fairlead struct {
	bin string
	env func() []string
}

func (f fairlead) start(ctx context.Context, h *cni.Host) (cni.Daemon, error) {
	config := fmt.Sprintf("run_dir: %s/run\nstate_dir: %s/state\nlisten: 127.0.0.1:0\nruntimes: {run: %s}\noverlay: {networks: [{name: suite, cidr: 10.42.0.0/16, vni: 42}]}\n", h.Dir, h.Dir, h.Dir)
	file := filepath.Join(h.Dir, "fairlead.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := Start(h.NetNS(), f.env(), filepath.Join(f.bin, "fairlead"), "agent", "--config", file)
	if err != nil {
		return nil, err
	}
	for range 1000 {
		if out, err := f.leases(h); err == nil && strings.Contains(out, "suite") {
			return p, nil
		}
		if p.Ended() {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond): // the agent tells nobody here that it is up
		}
	}
	_ = p.Kill()
	return nil, fmt.Errorf("the agent does not come up: %s", p.Said())
}

// leases is what the agent says of its network.
func (f fairlead) leases(h *cni.Host) (string, error) {
	out, err := exec.Command(filepath.Join(f.bin, "fairlead"), "net", "ls", "--json", "--socket", filepath.Join(h.Dir, "run/agent.sock")).Output()
	return string(out), err
}

// Reference are bridge, host-local and portmap of the CNI project, built into the directory bin.
func Reference(bin string) cni.Plugin {
	return cni.Plugin{
		Name: "reference (bridge + host-local + portmap)", Path: []string{bin},
		Conflist: func(h *cni.Host) string {
			return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"suite","plugins":[
				{"type":"bridge","bridge":"cni-suite0","isGateway":true,"ipMasq":true,"capabilities":{"ips":true,"mac":true},
				 "ipam":{"type":"host-local","dataDir":"%s/host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
				{"type":"portmap","capabilities":{"portMappings":true}}]}`, h.Dir)
		},
		Fixed: func(n int) string { return fmt.Sprintf("10.88.9.%d/16", n) },
		Leases: func(h *cni.Host) (string, error) {
			return cni.Files(filepath.Join(h.Dir, "host-local"), "last_reserved_ip", "lock")
		},
	}
}

// Process is a daemon in a network namespace.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	said bytes.Buffer
}

// Start runs a program in the network namespace netns, with more environment. It is killed when the one who started it ends.
func Start(netns string, env []string, argv ...string) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	p.cmd = exec.Command("nsenter", append([]string{"--net=" + netns, "--"}, argv...)...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = p, p, append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, so this one waits.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in ProcessState
		}
		close(p.done)
	}()
	return p, <-started
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Write takes what the process says.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

// Said gives what the process has said.
func (p *Process) Said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// Ended tells whether it has.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop sends SIGTERM and waits.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.Kill()
		return fmt.Errorf("%s does not end: %s", p.cmd.Path, p.Said())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %s: %s", p.cmd.Path, p.cmd.ProcessState, p.Said())
	}
	return nil
}

// Kill sends SIGKILL and waits.
func (p *Process) Kill() error {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
	return nil
}
