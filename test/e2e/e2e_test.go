//go:build kernel

// Package e2e runs the whole on simulated hosts, as a newcomer does: it builds the programs and calls the demo.
package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/sim"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// build builds every program of the repository, and the demo, into a directory of its own.
func build(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/...", "./test/e2e/demo")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// demo prepares a run of the demo.
func demo(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	hosttest.Require(t, "containerd", "ctr", "runc", "busybox", "rsyslogd", "ip", "nft", "nsenter", "curl")
	bin := build(t)
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "demo"), append([]string{"-bin", bin}, args...)...)
	cmd.Dir = "../.."
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

func TestDemoShowsThatTheMainJobIsDoneAndLeavesNothing(t *testing.T) {
	cmd, out := demo(t)
	before, err := sim.Look()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	if took := time.Since(began); took > 3*time.Minute {
		t.Errorf("the demo took %s, want at most 3 minutes", took)
	}
	for _, step := range []string{"hosts", "addresses", "ping", "tcp", "logs", "scrape", "kill -9", "removal", "leftovers"} {
		if !strings.Contains(out.String(), "\n  ok  "+step+" ") {
			t.Errorf("the demo has no line for %q:\n%s", step, out)
		}
	}
	t.Log(out.String())
	after, err := sim.Look()
	if err != nil {
		t.Fatal(err)
	}
	if diff := after.Changed(before); len(diff) > 0 {
		t.Errorf("the machine has changed:\n%s", strings.Join(diff, "\n"))
	}
}

func TestExampleConfigurationIsAcceptedAsItIsAndWithEveryLineTaken(t *testing.T) {
	bin := build(t)
	example, err := os.ReadFile("../../deploy/fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Prose begins with "# "; a line to take has no space there, or two and more when it is indented.
	taken := regexp.MustCompile(`(?m)^#(\S|  )`).ReplaceAll(example, []byte("$1"))
	if bytes.Equal(taken, example) {
		t.Fatal("the example has no line to take")
	}
	for _, text := range [][]byte{example, taken} {
		path := filepath.Join(t.TempDir(), "fairlead.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(filepath.Join(bin, "fairlead"), "config", "check", "--config", path).CombinedOutput(); err != nil {
			t.Errorf("config check: %v\n%s\nof:\n%s", err, out, text)
		}
	}
}

func TestWhatAKilledDemoLeftIsClearedByTheNext(t *testing.T) {
	cmd, out := demo(t)
	stdout, err := os.CreateTemp(t.TempDir(), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	cmd.Stdout = stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Containers run from its line "addresses" on.
	said := ""
	for deadline := time.Now().Add(time.Minute); !strings.Contains(said, "ok  addresses"); {
		b, err := os.ReadFile(stdout.Name())
		if err != nil {
			t.Fatal(err)
		}
		if said = string(b); time.Now().After(deadline) || exited(cmd.Process.Pid) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("no container after a minute:\n%s%s", said, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed by us
	mark := regexp.MustCompile(`fairlead-demo-\d+`).FindString(said)
	left, err := sim.Left(mark)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) == 0 {
		t.Fatalf("nothing carries the mark %q of the killed demo: this test would prove nothing", mark)
	}
	clean, cleaned := demo(t, "-clean")
	if err := clean.Run(); err != nil {
		t.Errorf("demo -clean: %v\n%s", err, cleaned)
	}
	if left, err = sim.Left(mark); err != nil || len(left) > 0 {
		t.Errorf("left behind (%v):\n%s", err, strings.Join(left, "\n"))
	}
}

// exited tells whether a child has ended, without waiting for it: until then it is a zombie.
func exited(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}
