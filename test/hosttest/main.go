package hosttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// MainInNetNS is for TestMain: it runs the tests in a copy of the test binary that has a network namespace of its own,
// so that whole parts of the agent, whose goroutines run on any thread, see that host. It does not return. Without
// root the tests run where they are, and skip by Root. after is called when the tests have ended.
func MainInNetNS(m *testing.M, after ...func()) {
	const mark = "FAIRLEAD_TEST_IN_NETNS"
	switch {
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	case os.Getenv(mark) != "":
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		code := m.Run()
		for _, f := range after {
			f()
		}
		os.Exit(code)
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), mark+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(0)
}
