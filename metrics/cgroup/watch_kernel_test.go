//go:build kernel

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// The limits are written by this process, by a child through another mount of the hierarchy in a mount namespace of its
// own, and by one in a cgroup namespace: the value is the new one in the very next Read, and no other file tells it.
func TestALimitIsNewAtOnceWhoeverWroteIt(t *testing.T) {
	hosttest.Root(t)
	hosttest.Require(t, "unshare", "mount", "sh")
	h, err := host.DefaultRoot().Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/fairlead-test-%d-watch", os.Getpid())
	m := host.Membership{V1: map[string]string{}}
	at, file, options := filepath.Join(h.V1["pids"], path), "pids.max", "-t cgroup -o pids"
	m.V1["pids"] = path
	if h.V1["pids"] == "" {
		if !slices.Contains(h.UnifiedControllers, "pids") {
			t.Skip("this host has no pids controller")
		}
		at, options, m = filepath.Join(h.Unified, path), "-t cgroup2", host.Membership{Unified: path}
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(at); err != nil {
			t.Error(err)
		}
	})
	tree := NewTree(h, &budget{left: 100})
	if err := tree.Watch(); err != nil {
		t.Fatal(err)
	}
	r := tree.Reader(m)
	defer r.Close()
	read := func() Value {
		t.Helper()
		var s Stats
		tree.Refresh()
		if err := r.Read(new(Buffer), &s); err != nil {
			t.Fatal(err)
		}
		return s.Pids.Limit
	}
	read()
	if !r.watched {
		t.Fatal("its limits are not watched")
	}
	// Where systemd is, we are in a cgroup of a service, and -C would show nothing above it.
	inRoot := "unshare -mC sh"
	if m.Unified != "" {
		inRoot = "echo $$ > " + h.Unified + "/cgroup.procs && " + inRoot
	}
	for i, as := range []string{"sh", "unshare -m sh", inRoot} {
		n := uint64(1000 + i)
		script := fmt.Sprintf("echo %d > %s/%s", n, at, file)
		if i > 0 {
			dir := t.TempDir()
			script = fmt.Sprintf("mount %s none %s && echo %d > %s%s/%s; r=$?; umount %s; exit $r", options, dir, n, dir, path, file, dir)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", as+" -c '"+script+"'").CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", as, err, out)
		}
		if got := read(); got != Known(n) {
			t.Errorf("%s: limit %+v, want %d", as, got, n)
		}
	}
	for n := range uint64(200) {
		if err := os.WriteFile(filepath.Join(at, file), fmt.Appendln(nil, n+1), 0); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != Known(n+1) {
			t.Fatalf("limit %+v, want %d", got, n+1)
		}
	}
}
