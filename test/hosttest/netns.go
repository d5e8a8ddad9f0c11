package hosttest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// NetNamespace is a new network namespace, held open by a descriptor and known nowhere by name.
type NetNamespace struct {
	File *os.File
	Path string // by which other processes reach it while the test runs
}

// NetNS makes a network namespace with its loopback up. It dies when the test ends.
func NetNS(t testing.TB) *NetNamespace {
	t.Helper()
	Root(t)
	n := &NetNamespace{}
	err := host.OnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if n.File, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return loopbackUp()
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.File.Fd())
	t.Cleanup(func() { _ = n.File.Close() }) // a namespace has nothing to flush
	return n
}

// Run calls f on a thread inside the namespace and gives its error. Goroutines that f starts, and sockets that they
// open, are outside; child processes that f starts are inside.
func (n *NetNamespace) Run(f func() error) error {
	return host.OnThread(func() error {
		if err := unix.Setns(int(n.File.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// InOwnNetNS runs the calling test again, alone, in a process whose network namespace is new and has its loopback up:
// for code that takes the process's own namespace for the host's. It answers true there; where it answers false the
// work is done, and the test must return.
func InOwnNetNS(t testing.TB) bool {
	t.Helper()
	Root(t)
	const mark = "FAIRLEAD_OWN_NETNS"
	if os.Getenv(mark) != "" {
		if err := loopbackUp(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		t.Errorf("in a network namespace of its own: %v", err)
	}
	return false
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
