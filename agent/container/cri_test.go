//go:build kernel

package container_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestCRIIsFoundBesideItsContainerdAndNamesPods(t *testing.T) {
	d := hosttest.Containerd(t, true)
	run := t.TempDir()
	place(t, run, "containerd/containerd.sock", d.Address)
	v := inventory(t, run)
	await(t, v, "both runtimes of one socket", func(s *container.Snapshot) bool { return s.Answered("cri") && s.Answered("containerd") })

	conn, err := d.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := cri.NewRuntimeServiceClient(conn)
	logs := filepath.Join(filepath.Dir(d.Address), "podlogs")
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "u-1"},
		LogDirectory: logs,
		Labels:       map[string]string{"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1"},
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: d.Cgroup, SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}
	sandbox, err := client.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	soon(t, "sandbox", await(t, v, "sandbox", hasState("web", container.Running)), within)
	if c := find(v.Snapshot(), "web"); !c.Sandbox || c.Runtime != "cri" || c.PID == 0 || c.Pod.Namespace != "shop" {
		t.Errorf("the sandbox is %+v", c)
	}

	made, err := client.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, SandboxConfig: pod, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "till"}, Image: &cri.ImageSpec{Image: daemons.BusyboxName},
		Command: []string{"/bin/sh", "-c", "echo hello; sleep 1000"}, LogPath: "till/0.log",
		Labels: map[string]string{"story": "told", "io.kubernetes.container.name": "till", "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop"},
		Mounts: []*cri.Mount{{HostPath: "/tmp", ContainerPath: "/host", Readonly: true}},
		Linux:  &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, v, "creation", hasState("till", container.Created))
	if _, err := client.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	soon(t, "start", await(t, v, "start", hasState("till", container.Running)), within)
	c := find(v.Snapshot(), "till")
	want := container.Pod{Namespace: "shop", Name: "web", Container: "till"}
	if c.Runtime != "cri" || string(c.ID) != made.ContainerId || c.PID == 0 || !strings.Contains(c.Cgroup.Path(), made.ContainerId) || c.Pod != want {
		t.Errorf("identity or the kernel's side is wrong: %+v", c)
	}
	if c.Log != (container.Log{Path: filepath.Join(logs, "till/0.log"), Format: container.CRI, Driver: "cri"}) {
		t.Errorf("log is %+v", c.Log)
	}
	if _, err := os.Stat(c.Rootfs.Upper); err != nil {
		t.Errorf("the root was not filled in from containerd: %+v: %v", c.Rootfs, err)
	}
	if c.Limits.MemoryBytes != 64<<20 || len(c.Mounts) != 1 {
		t.Errorf("limits are %+v, mounts %+v", c.Limits, c.Mounts)
	}
	for _, id := range []string{made.ContainerId, sandbox.PodSandboxId} {
		if n := count(v.Snapshot(), container.ID(id)); n != 1 {
			t.Errorf("%s is listed %d times", id, n)
		}
	}

	if _, err := client.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	soon(t, "exit", await(t, v, "exit", hasState("till", container.Exited)), within)
	if _, err := client.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	soon(t, "removal", await(t, v, "removal", buried("till")), within)
	for _, g := range v.Snapshot().Gone {
		if g.Runtime != "cri" {
			t.Errorf("a tombstone of %s: %+v", g.Runtime, g)
		}
	}
	d.Kill()
	await(t, v, "silence", answered("cri", false))
	if find(v.Snapshot(), "web") == nil {
		t.Error("the sandbox was dropped")
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := await(t, v, "return", answered("cri", true)); took > hosttest.Bound(3*time.Second) {
		t.Errorf("the return was seen after %s", took)
	}
	if n := count(v.Snapshot(), container.ID(sandbox.PodSandboxId)); n != 1 {
		t.Errorf("after the restart the sandbox is listed %d times", n)
	}
}
