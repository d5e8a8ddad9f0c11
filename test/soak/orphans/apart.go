package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
)

const apartMark = "FAIRLEAD_ORPHANS_APART"

// apart runs this program again, with args, in mount and network namespaces of its own and waits for it: ended is true
// and err says how it went. In that second program ended is false.
func apart(args ...string) (ended bool, err error) {
	if os.Getenv(apartMark) != "" {
		return false, nil
	}
	if os.Geteuid() != 0 {
		return true, errors.New("real rounds need root (namespaces, containerd)")
	}
	runtime.LockOSThread() // Pdeathsig is sent when the thread that forked ends
	defer runtime.UnlockOSThread()
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), apartMark+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return true, c.Run()
}

// holdNetNS makes a network namespace that the file path holds, as `ip netns add` does.
func holdNetNS(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	err = f.Close()
	if err == nil {
		err = host.OnThread(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		})
	}
	if err != nil {
		return fmt.Errorf("make network namespace %s: %w", path, err)
	}
	return nil
}

func dropNetNS(path string) error {
	return errors.Join(unix.Unmount(path, 0), os.Remove(path))
}
