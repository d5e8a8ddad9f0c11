package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMembershipOfEveryLayout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want Membership
		path string
	}{
		"v2": {"0::/system.slice/docker-4c1f.scope\n", Membership{V1: map[string]string{}, Unified: "/system.slice/docker-4c1f.scope"}, "/system.slice/docker-4c1f.scope"},
		"v1": {"11:memory:/docker/4c1f\n4:cpu,cpuacct:/docker/4c1f\n1:name=systemd:/\n",
			Membership{V1: map[string]string{"memory": "/docker/4c1f", "cpu": "/docker/4c1f", "cpuacct": "/docker/4c1f", "name=systemd": "/"}}, "/docker/4c1f"},
		"hybrid": {"4:memory:/a\n1:cpu:/b\n0::/\n", Membership{V1: map[string]string{"memory": "/a", "cpu": "/b"}, Unified: "/"}, "/a"},
		"colons and spaces in the path": {"4:pids:/kubepods/cri-containerd:4c1f x\n",
			Membership{V1: map[string]string{"pids": "/kubepods/cri-containerd:4c1f x"}}, "/kubepods/cri-containerd:4c1f x"},
		"another cgroup namespace": {"0::/../../web\n", Membership{V1: map[string]string{}, Unified: "/../../web"}, "/../../web"},
		"no line end":              {"0::/x", Membership{V1: map[string]string{}, Unified: "/x"}, "/x"},
		"other forms":              {"\nx\n1:cpu\n2:cpu:relative\n::\n", Membership{V1: map[string]string{}}, ""},
	} {
		got := ParseMembership([]byte(c.text))
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if got.Path() != c.path || got.IsZero() != (c.path == "") {
			t.Errorf("%s: path %q, zero %v", name, got.Path(), got.IsZero())
		}
	}
}

func FuzzParseMembership(f *testing.F) {
	f.Add([]byte("11:memory:/docker/4c1f\n4:cpu,cpuacct:/a:b\n0::/x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m := ParseMembership(text)
		for c, path := range m.V1 {
			if !strings.HasPrefix(path, "/") || strings.ContainsAny(c, ":,\n") || strings.Contains(path, "\n") {
				t.Errorf("controller %q has path %q", c, path)
			}
		}
		if m.Unified != "" && m.Unified[0] != '/' {
			t.Errorf("unified path %q", m.Unified)
		}
	})
}

func TestOwnMembershipIsRead(t *testing.T) {
	t.Parallel()
	m, err := DefaultRoot().CgroupOf(os.Getpid())
	if err != nil || m.IsZero() {
		t.Errorf("got %+v, %v", m, err)
	}
}

// Mount tables as they were recorded, in part.
const (
	hybridTable = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
`
	v2Table = `25 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	v1Table = `35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
50 1 0:32 / /mnt/elsewhere rw,relatime - cgroup cgroup rw,cpu
`
	// A privileged pod: its own cgroup on /sys, the host's below /host.
	podTable = `700 600 0:26 /kubepods/pod1/4c1f /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
710 600 0:22 / /host/sys rw - sysfs sysfs rw
711 710 0:26 / /host/sys/fs/cgroup rw shared:10 - cgroup2 cgroup2 rw
`
	// The same without the host's cgroup namespace.
	strangerTable = `710 600 0:22 / /host/sys rw - sysfs sysfs rw
711 710 0:26 /../../.. /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw
`
)

func TestCgroupMountsOfEveryLayoutAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		table, from, to string
		want            Hierarchies
		mode            string
		parts           int
	}{
		"hybrid": {hybridTable, "/sys", "/sys", Hierarchies{Unified: "/sys/fs/cgroup/unified", V1: map[string]string{
			"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory", "name=systemd": "/sys/fs/cgroup/systemd",
		}}, "hybrid", 0},
		"v2":               {v2Table, "/sys", "/sys", Hierarchies{V1: map[string]string{}, Unified: "/sys/fs/cgroup"}, "v2", 0},
		"v1":               {v1Table, "/sys", "/sys", Hierarchies{V1: map[string]string{"memory": "/sys/fs/cgroup/memory", "pids": "/sys/fs/cgroup/pids"}}, "v1", 0},
		"pod":              {podTable, "/host/sys/", "/host/sys/", Hierarchies{V1: map[string]string{}, Unified: "/host/sys/fs/cgroup"}, "v2", 0},
		"a container":      {podTable, "/sys", "/sys", Hierarchies{V1: map[string]string{}}, "v2", 1},
		"a stranger":       {strangerTable, "/host/sys", "/host/sys", Hierarchies{V1: map[string]string{}}, "v2", 1},
		"a recorded host":  {v2Table, "/sys", "/tmp/recorded/sys", Hierarchies{V1: map[string]string{}, Unified: "/tmp/recorded/sys/fs/cgroup"}, "v2", 0},
		"the first wins":   {v2Table + "9 8 0:26 / /sys/fs/other rw - cgroup2 cgroup2 rw\n", "/sys", "/sys", Hierarchies{V1: map[string]string{}, Unified: "/sys/fs/cgroup"}, "v2", 0},
		"a name like /sys": {"9 8 0:26 / /sysroot/cgroup rw - cgroup2 cgroup2 rw\n", "/sys", "/sys", Hierarchies{V1: map[string]string{}}, "v2", 0},
		"a space in the path": {`9 8 0:26 / /host\040one/sys/fs/cgroup rw - cgroup2 cgroup2 rw` + "\n", "/host one/sys", "/host one/sys",
			Hierarchies{V1: map[string]string{}, Unified: "/host one/sys/fs/cgroup"}, "v2", 0},
		"other lines": {"\nx - y\n1 2 3 / /sys/fs/x rw - cgroup2\n - cgroup2 a b\n", "/sys", "/sys", Hierarchies{V1: map[string]string{}}, "v2", 0},
	} {
		got, parts := parseMounts([]byte(c.table), c.from, c.to)
		if d := cmp.Diff(c.want, got); d != "" || got.Mode() != c.mode || len(parts) != c.parts {
			t.Errorf("%s: mode %s, parts %q (-want +got):\n%s", name, got.Mode(), parts, d)
		}
	}
}

// recordHost lays out a host whose mount table is table, with the given files below its /sys.
func recordHost(t *testing.T, table string, files map[string]string) Root {
	t.Helper()
	dir := t.TempDir()
	r := Root{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")}
	for name, text := range files {
		writeFile(t, filepath.Join(r.Sys, name), text)
	}
	writeFile(t, filepath.Join(r.Proc, "self/mountinfo"), strings.ReplaceAll(table, "DIR", dir))
	return r
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMovedRootsAreFollowed(t *testing.T) {
	t.Parallel()
	controllers := map[string]string{"fs/cgroup/cgroup.controllers": "cpu memory pids\n"}
	for name, table := range map[string]string{
		"mounted there":   "29 25 0:26 / DIR/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n9 8 0:26 / /sys/fs/cgroup/else rw - cgroup2 x rw\n",
		"recorded as own": v2Table,
	} {
		r := recordHost(t, table, controllers)
		h, err := r.Cgroups()
		want := Hierarchies{V1: map[string]string{}, Unified: filepath.Join(r.Sys, "fs/cgroup"), UnifiedControllers: []string{"cpu", "memory", "pids"}}
		if d := cmp.Diff(want, h); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, d)
		}
	}
}

func TestHostWithoutUsableCgroupsSaysWhy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ table, want string }{
		"none":             {"25 30 0:22 / /sys rw - sysfs sysfs rw\n", "none below "},
		"not mounted here": {v1Table, "none below "},
		"only a part":      {"9 8 0:26 /docker/4c1f DIR/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "only a part of the tree is mounted (/docker/4c1f on "},
	} {
		_, err := recordHost(t, c.table, nil).Cgroups()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (Root{Proc: t.TempDir(), Sys: "/sys"}).Cgroups(); err == nil || !strings.Contains(err.Error(), "mountinfo: no such file") {
		t.Errorf("without a mount table: %v", err)
	}
}

func TestCgroupsOfThisHostAreDirectories(t *testing.T) {
	t.Parallel()
	h, err := DefaultRoot().Cgroups()
	if err != nil {
		t.Skipf("this host has none: %v", err)
	}
	for _, dir := range h.V1 {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			t.Errorf("v1: %v", err)
		}
	}
	if h.Unified != "" {
		if _, err := os.Stat(filepath.Join(h.Unified, "cgroup.procs")); err != nil {
			t.Errorf("v2: %v", err)
		}
	}
}
