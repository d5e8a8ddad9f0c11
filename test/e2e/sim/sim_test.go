//go:build kernel

package sim

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestHostsReachEachOtherAndLeaveNothing(t *testing.T) {
	for _, names := range [][]string{{"web1", "web2"}, {"web1", "web2", "web3"}} {
		links := output(t, "ip", "-br", "link")
		c, err := New(t.Context(), "fairlead-sim", names...)
		if err != nil {
			t.Fatal(err)
		}
		first, last := c.Hosts[0], c.Hosts[len(c.Hosts)-1]
		if _, err := first.Run(t.Context(), "ping", "-c1", "-W5", last.Address.String()); err != nil {
			t.Error(err)
		}
		if out, err := last.Run(t.Context(), "hostname"); err != nil || strings.TrimSpace(out) != last.Name {
			t.Errorf("hostname is %q (%v), want %q", out, err, last.Name)
		}
		if _, err := last.Run(t.Context(), "sh", "-c", "echo here > /run/mine; mkdir /etc/cni/net.d"); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(last.Path("/run/mine")); err != nil || string(b) != "here\n" {
			t.Errorf("the host's /run/mine reads %q (%v) from outside, want %q", b, err, "here\n")
		}
		if _, err := os.Stat("/run/mine"); err == nil {
			t.Error("the host wrote into the machine's /run")
		}
		// A process that escaped its parents is still found.
		if err := first.Command(t.Context(), "sh", "-c", "setsid -f sleep 1000").Run(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		assertNothing(t, c.Mark)
		if after := output(t, "ip", "-br", "link"); after != links {
			t.Errorf("links before:\n%s\nafter:\n%s", links, after)
		}
	}
}

func TestNumberOfAClosedHostsNamespaceIsNobodyElses(t *testing.T) {
	c, err := New(t.Context(), "fairlead-simowns", "web1", "web2")
	if err != nil {
		t.Fatal(err)
	}
	h := c.Hosts[0]
	owned := h.Owns(h.PID())
	if err := c.Close(); err != nil || !owned || h.Owns(h.PID()) || h.Owns(os.Getpid()) {
		t.Fatalf("its holder was owned: %v (%v); after the end it is: %v; and so are we: %v", owned, err, h.Owns(h.PID()), h.Owns(os.Getpid()))
	}
	for range 20 { // strangers, who take the numbers that are free
		cmd := exec.CommandContext(t.Context(), "sleep", "infinity")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
		if h.Owns(cmd.Process.Pid) {
			t.Errorf("a stranger's process is taken for one of %s", h.Name)
		}
	}
}

func TestSweepClearsOnlyRunsWhoseStarterIsDead(t *testing.T) {
	const kind = "fairlead-simsweep"
	alive, err := New(t.Context(), kind, "web1", "web2")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := alive.Close(); err != nil {
			t.Error(err)
		}
	}()
	killed, err := New(t.Context(), kind, "web1", "web2")
	if err != nil {
		t.Fatal(err)
	}
	// What kill -9 of a starter leaves: a process number that is nobody's.
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed.Dir, "owner"), []byte("4194305 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cleared, err := Sweep(kind, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(cleared) != 1 || cleared[0] != killed.Mark {
		t.Errorf("cleared %v, want only %s", cleared, killed.Mark)
	}
	assertNothing(t, killed.Mark)
	if err := syscall.Kill(alive.Hosts[0].PID(), 0); err != nil {
		t.Errorf("holder of the living run: %v", err)
	}
}

func assertNothing(t *testing.T, mark string) {
	t.Helper()
	left, err := Left(mark)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}
