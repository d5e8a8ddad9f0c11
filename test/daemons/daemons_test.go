//go:build kernel

package daemons_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// machine is what daemons must leave as it was: mounts, cgroups, /run and the processes.
func machine(t *testing.T) []string {
	t.Helper()
	var seen []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/*", "/run/*", "/opt/*", "/var/lib/*", "/etc/cni", "/etc/cni/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if !strings.Contains(p, "fairlead-") { // other tests' simulated hosts
				seen = append(seen, p)
			}
		}
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		seen = append(seen, line)
	}
	return seen
}

// assertSame fails the test when something is there that was not before: on the machine, or with the daemon's name.
func assertSame(t *testing.T, before []string, dir string) {
	t.Helper()
	for _, s := range machine(t) {
		if !slices.Contains(before, s) {
			t.Errorf("left behind: %s", s)
		}
	}
	// A cgroup's name has no slashes.
	left, err := hosttest.Left(filepath.Base(dir))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind (%v):\n%s", err, strings.Join(left, "\n"))
	}
}

func TestContainerdLeavesNothingEvenAfterACrash(t *testing.T) {
	before := machine(t)
	d := hosttest.Containerd(t, false)
	dir := filepath.Dir(d.Address)
	for _, id := range []string{"daemons-one", "daemons-two"} {
		if _, err := d.Ctr(t.Context(), "default", "run", "-d", "--null-io", "--cgroup", d.Cgroup+"/"+id, daemons.BusyboxName, id, "sleep", "1000"); err != nil {
			t.Fatal(err)
		}
	}
	d.Kill()
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := d.Ctr(t.Context(), "default", "tasks", "ls")
	if err != nil || strings.Count(out, "RUNNING") != 2 {
		t.Errorf("after the restart the tasks are (%v):\n%s", err, out)
	}
	if _, err := d.Ctr(t.Context(), "default", "tasks", "rm", "-f", "daemons-one"); err != nil {
		t.Error(err)
	}
	d.Kill()
	if err := d.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	assertSame(t, before, dir)
}

func TestDockerEngineLeavesNothing(t *testing.T) {
	before := machine(t)
	d := hosttest.Dockerd(t, nil)
	id, err := d.Client(t.Context(), "run", "-d", "--net", "host", "bb", "sh", "-c", "echo hello; sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.Client(t.Context(), "inspect", id)
	var have []struct{ State struct{ Running bool } }
	if err != nil || json.Unmarshal([]byte(out), &have) != nil || len(have) != 1 || !have[0].State.Running {
		t.Errorf("inspect says (%v):\n%s", err, out)
	}
	d.Kill()
	if err := d.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	assertSame(t, before, filepath.Dir(d.Socket))
}

func TestPodmanLeavesNothing(t *testing.T) {
	before := machine(t)
	d := hosttest.PodmanAPI(t)
	if _, err := d.Client(t.Context(), "run", "-d", "--net", "host", "--cgroup-parent", d.Cgroup, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "bb", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	if err := d.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	assertSame(t, before, filepath.Dir(d.Socket))
}

func TestADaemonThatEndsAtOnceIsAnErrorWithItsLog(t *testing.T) {
	hosttest.Require(t, "containerd", "nsenter")
	dir := hosttest.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "root"), nil, 0o644); err != nil { // where it wants a directory
		t.Fatal(err)
	}
	d, err := daemons.Containerd(t.Context(), daemons.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("got %v and %v, want an error that says what containerd said", d, err)
	}
}
