package daemons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a daemon may take to answer after its start, and to end after SIGTERM. Both take under two
// seconds on an idle machine; two cores may be shared with many tests, or emulated.
const patience = 90 * time.Second

// Process is one running daemon. Its methods must not be called concurrently.
type Process struct {
	PID int
	Log string // file with its stdout and stderr
	// Cgroup is a parent for its containers' cgroups that nobody else uses; Stop removes it. Docker uses it unasked; for
	// others it is given as `ctr run --cgroup CGROUP/name`, `podman run --cgroup-parent CGROUP`, CRI's CgroupParent.
	Cgroup string

	opts  Options
	argv  []string
	mnt   *os.File // its mount namespace, held so that a restarted daemon returns to it
	done  chan struct{}
	state *os.ProcessState // valid after done
	in    string           // its own cgroups, as /proc/PID/cgroup has them
	found []string         // top-level cgroups that were there before the first start
}

// start runs argv as opts say; its output is appended to Dir/NAME.log.
func start(opts Options, name string, argv ...string) (*Process, error) {
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{opts: opts, argv: argv, Log: filepath.Join(opts.Dir, name+".log"), Cgroup: opts.cgroup(), found: topCgroups()}
	if err := p.launch(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// apart is run in a new mount namespace before the daemon: it gets an own /run, and writes to /opt and /var/lib, where
// daemons make directories whatever their configuration says, go to DIR.
const apart = `for top in opt var/lib; do
	mkdir -p "$0/apart/$top/upper" "$0/apart/$top/work"
	mount -t overlay -o "lowerdir=/$top,upperdir=$0/apart/$top/upper,workdir=$0/apart/$top/work" overlay "/$top"
done
mount --bind "$0/run" /run
exec "$@"`

// launch starts the process, for the first time or again after Kill.
func (p *Process) launch() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.command(context.Background(), p.argv...)
	cmd.Stdout, cmd.Stderr = log, log
	if p.own() && p.mnt == nil {
		wrapped := append([]string{"/bin/sh", "-ec", apart, p.opts.Dir}, p.argv...)
		cmd.Path, cmd.Args = wrapped[0], wrapped
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // Go makes its mounts private as well
	}
	if !p.opts.Keep {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error)
	p.done = make(chan struct{})
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, not the process; so this thread waits.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
			p.state = cmd.ProcessState
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.PID = cmd.Process.Pid
	return nil
}

// holdMounts keeps the daemon's mount namespace; to be called when the daemon answers, because only then the prefix or
// the shell in front of it has surely become the daemon.
func (p *Process) holdMounts() error {
	if p.mnt != nil {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.PID))
	if err != nil {
		return fmt.Errorf("hold mount namespace: %w", err)
	}
	in, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	if err != nil {
		return errors.Join(fmt.Errorf("read cgroup: %w", err), f.Close())
	}
	p.mnt, p.in = f, string(in)
	return nil
}

func (p *Process) own() bool { return len(p.opts.Prefix) == 0 }

func (p *Process) command(ctx context.Context, argv ...string) *exec.Cmd {
	prefix := p.opts.Prefix
	if p.own() && p.mnt != nil {
		prefix = []string{"nsenter", fmt.Sprintf("--mount=/proc/%d/fd/%d", os.Getpid(), p.mnt.Fd()), "--"}
	}
	argv = append(prefix[:len(prefix):len(prefix)], argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Run runs a command to its end where the daemon runs: its mounts, its /run. It gives what was printed on stdout; the
// error carries stderr.
func (p *Process) Run(ctx context.Context, argv ...string) (string, error) {
	cmd := p.command(ctx, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A child that keeps the pipe, such as a shim of `ctr run -d`, must not hold us.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Seen gives the path by which this process reaches what the daemon sees as path, while the daemon runs.
func (p *Process) Seen(path string) string { return fmt.Sprintf("/proc/%d/root%s", p.PID, path) }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL, as a crash would, and waits for its end. Its containers live on.
func (p *Process) Kill() {
	if p.Running() {
		_ = syscall.Kill(p.PID, syscall.SIGKILL) // not yet waited for, so the number is still its own
	}
	<-p.done
}

// Pause stops the process from running (SIGSTOP): it neither answers nor ends. Resume lets it go on.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume is the end of Pause.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) error {
	if !p.Running() {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.PID, s)
}

// Stop lets the daemon write what it has and end. It may be called twice, after Kill, and where nothing was started. A
// daemon with containers has a Stop of its own.
func (p *Process) Stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	return p.end(ctx)
}

// end sends SIGTERM and waits; after the bound it kills.
func (p *Process) end(ctx context.Context) error {
	if !p.Running() {
		return nil
	}
	_ = p.signal(syscall.SIGCONT)
	if err := p.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.argv[0], err)
	}
	bound := time.NewTimer(patience)
	defer bound.Stop()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("end %s: killed: %w", p.argv[0], ctx.Err())
	case <-bound.C:
		p.Kill()
		return fmt.Errorf("end %s: killed: SIGTERM was not obeyed within %s; see %s", p.argv[0], patience, p.Log)
	}
}

// await asks ready again and again until it has no objection, the daemon ends or patience does.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return p.holdMounts()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended with %v: %s", p.argv[0], p.state, tail(p.Log))
		case <-ctx.Done():
			return fmt.Errorf("%s did not answer: %w: %s", p.argv[0], err, tail(p.Log))
		case <-time.After(20 * time.Millisecond): // the socket appears and answers without any event for us
		}
	}
}

// listensOn is satisfied when a TCP socket of the daemon's network namespace listens on the port of address.
func (p *Process) listensOn(address string) error { return p.hasSocket("tcp", address, "0A") }

// boundUDP is satisfied when a UDP socket there has the port of address.
func (p *Process) boundUDP(address string) error { return p.hasSocket("udp", address, "07") }

// hasSocket asks the kernel: a connection could not be made from outside the daemon's network namespace.
func (p *Process) hasSocket(protocol, address, state string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.PID, protocol))
	if err != nil {
		return err
	}
	if !regexp.MustCompile(fmt.Sprintf(`(?m)^ *\d+: [0-9A-F]{8}:%04X 00000000:0000 %s`, n, state)).Match(sockets) {
		return fmt.Errorf("nothing listens on %s port %s", protocol, port)
	}
	return nil
}

// tail gives the end of a log for an error message.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 2000 {
		_, _ = f.Seek(-2000, io.SeekEnd) // then all of it is read
	}
	b, _ := io.ReadAll(f)
	return string(bytes.TrimSpace(b))
}
