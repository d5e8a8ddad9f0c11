//go:build kernel

package metrics

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// testCgroup is a cgroup of this test in each hierarchy that has a controller we read.
type testCgroup struct {
	member host.Membership
	dirs   map[string]string // by controller
}

// newCgroup makes the cgroup called name. Cleanup removes it.
func newCgroup(t *testing.T, name string) *testCgroup {
	t.Helper()
	hosttest.Root(t)
	mounts, err := host.DefaultRoot().Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	name = strconv.Itoa(os.Getpid()) + "-" + name
	path := filepath.Join(slice(t, mounts, name), "fairlead-test-"+name)
	g := &testCgroup{member: host.Membership{V1: map[string]string{}}, dirs: map[string]string{}}
	for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "io"} {
		switch at, v1 := mounts.V1[controller]; {
		case v1:
			g.dirs[controller] = filepath.Join(at, path)
			g.member.V1[controller] = path
		case slices.Contains(mounts.UnifiedControllers, controller):
			g.dirs[controller] = filepath.Join(mounts.Unified, path)
			g.member.Unified = path
		case controller == "cpu", controller == "memory", controller == "pids":
			t.Skipf("this host has no %s controller", controller)
		}
	}
	for _, dir := range g.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, dir := range g.dirs {
			if err := g.remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	return g
}

// remove waits until the kernel has let go of a process that has just ended.
func (g *testCgroup) remove(dir string) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if err = os.Remove(dir); err == nil || os.IsNotExist(err) {
			return nil
		}
	}
	return err
}

// set writes the first of files that exists: v1's name, then v2's, each as "name value".
func (g *testCgroup) set(t *testing.T, controller string, files ...string) {
	t.Helper()
	for _, f := range files {
		name, value, _ := strings.Cut(f, " ")
		path := filepath.Join(g.dirs[controller], name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("none of %q in %s", files, g.dirs[controller])
}

// slice gives the cgroup below which a test makes its own: the root, or, where systemd rules cgroup v2, a unit in a slice
// of its own, which systemd has delegated to us as it does to a container runtime. Cleanup removes it.
func slice(t *testing.T, mounts host.Hierarchies, name string) string {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil || mounts.Mode() != "v2" {
		return "/"
	}
	run := func(argv ...string) string {
		t.Helper()
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput() // in Cleanup too, when the test's context has ended
		if err != nil {
			t.Fatalf("%s: %v %s", strings.Join(argv, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	unit, slice := fmt.Sprintf("fairlead-test-%s.service", name), fmt.Sprintf("fairleadtest%d.slice", os.Getpid())
	run("systemd-run", "--quiet", "--collect", "--service-type=exec", "--unit="+unit, "--slice="+slice, "-p", "Delegate=yes", "sleep", "infinity")
	t.Cleanup(func() { run("systemctl", "stop", unit, slice) })
	path := run("systemctl", "show", "-P", "ControlGroup", unit)
	dir := filepath.Join(mounts.Unified, path)
	// Controllers are given to those below only by a cgroup without processes of its own.
	err := os.Mkdir(filepath.Join(dir, "main"), 0o755)
	for _, f := range [][2]string{
		{"main/cgroup.procs", run("systemctl", "show", "-P", "MainPID", unit)},
		{"cgroup.subtree_control", "+cpu +memory +pids +io"},
	} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
