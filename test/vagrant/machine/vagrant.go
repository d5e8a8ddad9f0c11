package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/test/vagrant/line"
)

// vagrant is a machine that Vagrant made by the Vagrantfile of the current directory. Its wire is the guest program's
// standard input and output, over ssh; after a reset it is dialled again.
type vagrant struct {
	name, config string // for `ssh -F config name`

	mu      sync.Mutex
	ssh     *exec.Cmd
	in      io.WriteCloser
	out     io.Reader
	stopped bool
}

// StartVagrant makes a new machine, in the place of one of that name that is left, and returns when it has been
// provisioned; Boot waits for the guest program. dir is for what ssh needs to know.
func StartVagrant(ctx context.Context, name, dir string) (*Machine, error) {
	v := &vagrant{name: name, config: filepath.Join(dir, name+".ssh")}
	log := filepath.Join(dir, name+".console")
	err := v.up(ctx, log)
	if err != nil {
		said, _ := os.ReadFile(log) // the directory goes with the story
		return nil, errors.Join(fmt.Errorf("start %s: %w\n%s", name, err, said[max(0, len(said)-2000):]), v.destroy())
	}
	m := &Machine{Name: name, Log: log, Client: line.NewClient(v), control: v}
	go func() { _ = m.Client.Run() }() // what ended it is told to every caller
	return m, nil
}

func (v *vagrant) up(ctx context.Context, log string) error {
	if err := v.destroy(); err != nil {
		return err
	}
	said, err := os.Create(log)
	if err != nil {
		return err
	}
	defer said.Close()
	up := exec.CommandContext(ctx, "vagrant", "up", v.name)
	up.Stdout, up.Stderr = said, said
	if err := up.Run(); err != nil {
		return fmt.Errorf("vagrant up: %w", err)
	}
	config, err := exec.CommandContext(ctx, "vagrant", "ssh-config", v.name).Output()
	if err != nil {
		return fmt.Errorf("vagrant ssh-config: %w", err)
	}
	return os.WriteFile(v.config, config, 0o600)
}

func (v *vagrant) destroy() error {
	if out, err := exec.Command("vagrant", "destroy", "-f", v.name).CombinedOutput(); err != nil {
		return fmt.Errorf("vagrant destroy %s: %w\n%s", v.name, err, out)
	}
	return nil
}

// Read reads from the guest program, and dials again where the wire ends, until the machine is stopped.
func (v *vagrant) Read(b []byte) (int, error) {
	for {
		out, err := v.dialled()
		if err != nil {
			return 0, err
		}
		if n, err := out.Read(b); n > 0 || err == nil {
			return n, nil
		}
		v.hangUp()
		time.Sleep(time.Second) // nothing tells when the machine is up again
	}
}

// Write writes to the guest program. What is written while nobody answers is lost, as it is with a machine.
func (v *vagrant) Write(b []byte) (int, error) {
	v.mu.Lock()
	in := v.in
	v.mu.Unlock()
	if in == nil {
		return 0, line.ErrLost
	}
	return in.Write(b)
}

func (v *vagrant) dialled() (io.Reader, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.stopped:
		return nil, io.EOF
	case v.ssh != nil:
		return v.out, nil
	}
	ssh := exec.Command("ssh", "-F", v.config, "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", v.name, "sudo", "/fairlead/guest", "-")
	ssh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := ssh.StdinPipe()
	out, err2 := ssh.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if err := ssh.Start(); err != nil {
		return nil, fmt.Errorf("dial %s: %w", v.name, err)
	}
	v.ssh, v.in, v.out = ssh, in, out
	return out, nil
}

func (v *vagrant) hangUp() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ssh != nil {
		_ = v.ssh.Process.Kill() // it may have ended
		_ = v.ssh.Wait()         // as it had to
		v.ssh, v.in, v.out = nil, nil, nil
	}
}

// reset lets the kernel reset the machine at once: nothing is flushed and nothing is ended (sysrq.rst, "b"). It comes a
// moment after ssh has ended, which otherwise would wait for an answer.
func (v *vagrant) reset(ctx context.Context) error {
	const b = "sudo sh -c '(sleep 0.5; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &'"
	if out, err := exec.CommandContext(ctx, "ssh", "-F", v.config, v.name, b).CombinedOutput(); err != nil {
		return fmt.Errorf("ssh: %w: %s", err, out)
	}
	return nil
}

func (v *vagrant) stop() {
	v.mu.Lock()
	again := v.stopped
	v.stopped = true
	v.mu.Unlock()
	if again {
		return
	}
	v.hangUp()
	if err := v.destroy(); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
}

func (v *vagrant) running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.stopped
}
