package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

func TestShimsAreToldByTheirCommandLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id abc -address /run/c.sock":                    "k8s.io abc /run/c.sock",
		"/usr/bin/containerd-shim-runc-v2 -namespace default -id web -address /run/c.sock -debug":            "default web /run/c.sock",
		"/usr/bin/containerd-shim-runc-v2 -namespace default -id web -address /run/c.sock start":             "",
		"/usr/bin/containerd-shim-runc-v2 -namespace default -address /run/c.sock -bundle /x -id web delete": "",
		"/usr/bin/containerd-shim-runc-v2 -namespace default -address /run/c.sock":                           "",
		"/usr/bin/containerd -namespace default -id web -address /run/c.sock":                                "",
		"/opt/containerd-shim-kata-v2 --namespace default --id web --address /run/c.sock":                    "default web /run/c.sock",
		"":                            "",
		"containerd-shim-runc-v2 -id": "",
	} {
		m, ok := parseShim(strings.Fields(line))
		got := ""
		if ok {
			got = fmt.Sprintf("%s %s %s", m.namespace, m.id, m.address)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

func TestCgroupsAreToldByTheirPath(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0a", 32)
	for path, want := range map[string]string{
		"/docker/" + id:                         "docker",
		"/system.slice/docker-" + id + ".scope": "docker",
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": "containerd",
		"/kubepods/burstable/pod1/" + id:                                      "any",
		"/kubepods.slice/crio-" + id + ".scope":                               "cri",
		"/machine.slice/libpod-" + id + ".scope":                              "podman",
		"/libpod_parent/libpod-" + id:                                         "podman",
		"/default/web":                                                        "weak",
		"/docker/" + id[:63]:                                                  "weak",
		"/docker/" + id + "/init":                                             "weak",
		"/system.slice/ssh.service":                                           "weak",
	} {
		cl, weak := claimOfCgroup(path)
		got := "any"
		if weak {
			got = "weak"
		} else if len(cl.Runtimes) > 0 {
			got = cl.Runtimes[0]
		}
		if got != want || !weak && cl.ID != container.ID(id) || cl.Cgroup != path {
			t.Errorf("%s: got %s of %q, want %s", path, got, cl.ID, want)
		}
	}
}

func TestMountsAreToldByTheirPointOrUpperDirectory(t *testing.T) {
	t.Parallel()
	table := parseMountinfo(`22 1 0:5 / /run/netns/x\040y rw shared:2 - nsfs nsfs rw
101 22 0:50 / /run/containerd/io.containerd.runtime.v2.task/default/web/rootfs rw - overlay overlay rw,lowerdir=/l,upperdir=/s/2/fs,workdir=/s/2/work
102 22 0:51 / /run/containerd/io.containerd.grpc.v1.cri/sandboxes/abc/shm rw - tmpfs shm rw
103 22 0:52 / /var/lib/docker/overlay2/77/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/docker/overlay2/77/diff,workdir=/w
104 22 0:53 / /srv rw - ext4 /dev/sda rw
105 22 0:54 / /ro rw - overlay overlay ro,lowerdir=/a:/b
torn line
`)
	if len(table) != 6 || table[0].point != "/run/netns/x y" {
		t.Fatalf("table is %+v", table)
	}
	m := mounts{DefaultHost(host.DefaultRoot(), "/run")}
	var got []string
	for _, p := range table {
		if r, ok := m.resource(p); ok {
			got = append(got, fmt.Sprintf("%s %s/%s upper=%s weak=%v", r.ID, r.Claim.Namespace, r.Claim.ID, r.Claim.Upper, r.Weak))
		}
	}
	want := []string{
		"/run/containerd/io.containerd.runtime.v2.task/default/web/rootfs default/web upper= weak=false",
		"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/abc/shm k8s.io/abc upper= weak=false",
		"/var/lib/docker/overlay2/77/merged / upper=/var/lib/docker/overlay2/77/diff weak=true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// recorded makes a host of files: processes, runc's states, containerd's directories.
func recorded(t *testing.T, files map[string]string) Host {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	h := DefaultHost(host.Root{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")}, filepath.Join(dir, "run"))
	h.Containerd = []string{filepath.Join(dir, "run/containerd")}
	return h
}

func stat(pid, parent int, comm string, start int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", pid, comm, parent, start)
}

func state(pid, start int) string {
	return fmt.Sprintf(`{"id":"x","init_process_pid":%d,"init_process_start":%d,"config":{}}`, pid, start)
}

func TestContainerWhoseShimIsDeadIsFoundByRuncsState(t *testing.T) {
	t.Parallel()
	h := recorded(t, map[string]string{
		"proc/10/stat": stat(10, 1, "containerd-shim", 100), "proc/10/cmdline": "containerd-shim-runc-v2\x00-namespace\x00default\x00-id\x00minded\x00-address\x00/c.sock\x00",
		"proc/11/stat": stat(11, 10, "sleep", 110),
		"proc/12/stat": stat(12, 1, "sleep", 120),
		"proc/13/stat": stat(13, 1, "other", 999),
		"proc/14/stat": stat(14, 1, "byhand", 140),
		"run/containerd/runc/default/minded/state.json":      state(11, 110),
		"run/containerd/runc/default/adrift/state.json":      state(12, 120),
		"run/containerd/runc/default/dead/state.json":        state(13, 130), // the number is another process's now
		"run/containerd/runc/default/making/other":           "",
		"run/containerd/runc/default/.fairlead-quarantine/x": "",
		"run/docker/runtime-runc/moby/d1/state.json":         state(77, 1),
		"run/runc/byhand/state.json":                         state(14, 140),
	})
	have, err := runc{h}.Owned(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range have {
		got = append(got, fmt.Sprintf("%s %s %v %v %v", r.Kind, strings.TrimPrefix(r.ID, h.Run), r.Claim.Runtimes, r.PIDs, r.Adrift))
	}
	slices.Sort(got)
	want := []string{
		"process default/adrift [containerd] [12] true",
		"state /containerd/runc/default/adrift [containerd] [12] false",
		"state /containerd/runc/default/dead [containerd] [] false",
		"state /containerd/runc/default/making [containerd] [] false",
		"state /containerd/runc/default/minded [containerd] [11] false",
		"state /docker/runtime-runc/moby/d1 [docker] [] false",
		"state /runc/byhand [] [14] false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestShimsAndBundlesOfARecordedHost(t *testing.T) {
	t.Parallel()
	h := recorded(t, map[string]string{
		"proc/10/stat": stat(10, 1, "containerd-shim", 100), "proc/10/cmdline": "containerd-shim-runc-v2\x00-namespace\x00moby\x00-id\x00one\x00-address\x00/c.sock\x00",
		"proc/11/stat": stat(11, 10, "sleep", 110),
		"proc/12/stat": stat(12, 1, "containerd-shim", 120), "proc/12/cmdline": "containerd-shim-runc-v2\x00-namespace\x00default\x00-id\x00two\x00-address\x00/c.sock\x00",
		"run/containerd/io.containerd.runtime.v2.task/default/two/init.pid": "12",
		"run/containerd/io.containerd.runtime.v2.task/default/.hidden/x":    "",
	})
	have, err := shims{h}.Owned(context.Background())
	if err != nil || len(have) != 2 {
		t.Fatalf("%+v, %v", have, err)
	}
	one, two := have[0], have[1]
	if !slices.Equal(one.PIDs, []int{11}) || one.Claim.Runtimes[0] != "docker" || one.Claim.Sockets != nil {
		t.Errorf("Docker's shim: %+v", one)
	}
	if len(two.PIDs) != 0 || two.Claim.ID != "two" || !slices.Equal(two.Claim.Sockets, []string{"/c.sock"}) || two.Instance != "12:120" {
		t.Errorf("the other: %+v", two)
	}
	dirs, err := bundles{h}.Owned(context.Background())
	if err != nil || len(dirs) != 1 || dirs[0].Claim.ID != "two" || dirs[0].Dir != dirs[0].ID || dirs[0].Size != 2 {
		t.Fatalf("%+v, %v", dirs, err)
	}
	if err := (bundles{h}).Release(context.Background(), dirs[0]); !errors.Is(err, errMovedOnly) {
		t.Errorf("a state directory was released: %v", err)
	}
}
