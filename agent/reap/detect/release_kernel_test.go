//go:build kernel

package detect

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// init keeps the first thread of the process for main: tests change the namespace of theirs.
func init() { runtime.LockOSThread() }

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func one(t *testing.T, o reap.Owner, id string) reap.Resource {
	t.Helper()
	all, err := o.Owned(t.Context())
	must(t, err)
	for _, r := range all {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("%s is not among %+v", id, all)
	return reap.Resource{}
}

func TestMountInUseIsNotReleased(t *testing.T) {
	dir := hosttest.Dir(t)
	h := Host{Root: host.DefaultRoot(), Containerd: []string{dir}}
	point := filepath.Join(dir, tasksDir, "default/web/rootfs")
	lower, upper, work := filepath.Join(dir, "l"), filepath.Join(dir, "u"), filepath.Join(dir, "w")
	for _, d := range []string{point, lower, upper, work} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, unix.Mount("overlay", point, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work))
	t.Cleanup(func() { _ = unix.Unmount(point, 0) }) // released by then, if all went well
	m := mounts{h}
	r := one(t, m, point)
	f, err := os.Create(filepath.Join(point, "open"))
	must(t, err)
	if err := m.Release(t.Context(), r); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("with an open file: %v", err)
	}
	must(t, f.Close())
	later := r
	later.Instance = "1 /"
	if err := m.Release(t.Context(), later); err == nil {
		t.Error("another instance was released")
	}
	must(t, m.Release(t.Context(), r), m.Release(t.Context(), r))
	if _, err := os.Stat(filepath.Join(point, "open")); err == nil {
		t.Error("it is still mounted")
	}
}

func TestNamespaceFileInUseIsNotReleased(t *testing.T) {
	dir := hosttest.Dir(t)
	h := Host{Root: host.DefaultRoot(), Run: dir}
	path := filepath.Join(dir, "netns/x")
	must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600))
	must(t, host.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}))
	t.Cleanup(func() { _ = unix.Unmount(path, 0) }) // released by then, if all went well
	n := namespaces{h}
	f, err := os.Open(path)
	must(t, err)
	if r := one(t, n, path); len(r.PIDs) != 1 || r.PIDs[0] != os.Getpid() || !strings.HasPrefix(r.Instance, "cookie ") {
		t.Errorf("with an open file: %+v", r)
	} else if err := n.Release(t.Context(), r); err == nil {
		t.Error("it was released while a file of it is open")
	}
	must(t, f.Close())
	r := one(t, n, path)
	other := r
	other.Instance = "cookie 1"
	if err := n.Release(t.Context(), other); err == nil || len(r.PIDs) > 0 {
		t.Errorf("another instance was released, or it is held by %v: %v", r.PIDs, err)
	}
	must(t, unix.Unmount(path, 0)) // as when the agent is killed between the two steps
	must(t, n.Release(t.Context(), r), n.Release(t.Context(), r))
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}

func TestForeignLinkIsFoundByItsOtherEnd(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	ns := hosttest.NetNS(t)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0", NetNsID: -1}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.File.Fd())}
	ours := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1", Group: 5, NetNsID: -1}, PeerName: "eth1", PeerNamespace: netlink.NsFd(ns.File.Fd())}
	must(t, netlink.LinkAdd(veth), netlink.LinkAdd(ours))
	l := links{Host{Root: host.DefaultRoot(), Run: t.TempDir(), OurGroups: []uint32{5}}}
	all, err := l.Owned(t.Context())
	must(t, err)
	if len(all) != 1 || all[0].ID != "veth0" || all[0].ReportOnly == "" {
		t.Fatalf("without a file or a process: %+v", all)
	}
	other := all[0]
	other.Instance = "9999"
	if err := l.Release(t.Context(), other); err == nil {
		t.Error("another instance was released")
	}
	must(t, l.Release(t.Context(), all[0]), l.Release(t.Context(), all[0]))
	if _, err := netlink.LinkByName("veth0"); err == nil {
		t.Error("the link is still there")
	}
}
