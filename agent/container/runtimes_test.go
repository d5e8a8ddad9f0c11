//go:build kernel

package container_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// inventory runs an Inventory that looks for runtimes below run only, and ends it with the test.
func inventory(t testing.TB, run string) *container.Inventory {
	t.Helper()
	v, err := container.New(container.Config{Run: run}, container.Deps{
		Host: host.DefaultRoot(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Stat: new(stat.Registry),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return v
}

// await follows the inventory until ok, and gives how long that took.
func await(t testing.TB, v *container.Inventory, what string, ok func(*container.Snapshot) bool) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Bound(20*time.Second))
	defer cancel()
	began := time.Now()
	for s := range v.Follow(ctx) {
		if ok(s) {
			return time.Since(began)
		}
	}
	s := v.Snapshot()
	t.Fatalf("%s was not seen; runtimes %+v\ncontainers %+v\ngone %+v", what, s.Runtimes, s.Containers, s.Gone)
	return 0
}

// soon fails the test when something took longer than an event may.
func soon(t testing.TB, what string, took, within time.Duration) {
	t.Helper()
	t.Logf("%s was seen %s after the command had ended", what, took.Round(time.Millisecond))
	if took > within {
		t.Errorf("%s was seen after %s, want within %s", what, took, within)
	}
}

// place makes a socket known under the name that a host's /run has for it.
func place(t testing.TB, run, name, socket string) {
	t.Helper()
	path := filepath.Join(run, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(socket, path); err != nil {
		t.Fatal(err)
	}
}

func find(s *container.Snapshot, name string) *container.Container {
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i]
		}
	}
	return nil
}

func hasState(name string, state container.State) func(*container.Snapshot) bool {
	return func(s *container.Snapshot) bool {
		c := find(s, name)
		return c != nil && c.State == state
	}
}

func answered(r container.Runtime, want bool) func(*container.Snapshot) bool {
	return func(s *container.Snapshot) bool { return len(s.Runtimes) > 0 && s.Answered(r) == want }
}

func buried(name string) func(*container.Snapshot) bool {
	return func(s *container.Snapshot) bool {
		for _, g := range s.Gone {
			if g.Name == name && g.Labels["story"] == "told" {
				return find(s, name) == nil
			}
		}
		return false
	}
}

// must runs a command of a daemon's client.
func must(t testing.TB) func(string, error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// within is when a change must have been seen. The promise is 200 ms, and each test prints its figure; on a busy machine
// the runtime's own event comes later than that, so a test fails only above a second, which no missed event stays below.
var within = hosttest.Bound(time.Second)

func TestContainerdIsFoundAndFollowed(t *testing.T) {
	d := hosttest.Containerd(t, false)
	run := t.TempDir()
	v := inventory(t, run) // first the agent, then the runtime's socket
	place(t, run, "containerd/containerd.sock", d.Address)
	await(t, v, "containerd", answered("containerd", true))

	log := filepath.Join(filepath.Dir(d.Address), "out.log")
	must(t)(d.Ctr(t.Context(), "default", "run", "-d", "--label", "story=told", "--log-uri", "file://"+log, "--memory-limit", "67108864",
		"--mount", "type=bind,src=/tmp,dst=/host,options=rbind:ro", "--cgroup", d.Cgroup+"/one", daemons.BusyboxName, "inv-one", "sh", "-c", "echo hello; sleep 1000"))
	soon(t, "start", await(t, v, "start", hasState("inv-one", container.Running)), within)
	c := find(v.Snapshot(), "inv-one")
	if c.PID == 0 || c.NetNS.IsZero() || c.Cgroup.Path() != d.Cgroup+"/one" || c.Started.IsZero() || time.Since(c.Started).Abs() > hosttest.Bound(5*time.Second) {
		t.Errorf("the kernel's side is missing: %+v", c)
	}
	if c.Log != (container.Log{Path: log, Format: container.Plain, Driver: "file"}) {
		t.Errorf("log is %+v, want %s", c.Log, log)
	}
	if c.Limits.MemoryBytes != 64<<20 || c.Image != daemons.BusyboxName || c.Namespace != "default" {
		t.Errorf("limits, image or namespace are wrong: %+v", c)
	}
	if len(c.Mounts) != 1 || c.Mounts[0] != (container.Mount{Type: "bind", Source: "/tmp", Destination: "/host", ReadOnly: true}) {
		t.Errorf("mounts are %+v", c.Mounts)
	}
	if _, err := os.Stat(c.Rootfs.Upper); err != nil || len(c.Rootfs.Lower) != 1 {
		t.Errorf("root is %+v: %v", c.Rootfs, err)
	}

	must(t)(d.Ctr(t.Context(), "default", "tasks", "kill", "-s", "9", "inv-one"))
	soon(t, "exit", await(t, v, "exit", hasState("inv-one", container.Stopping)), within)
	if c := find(v.Snapshot(), "inv-one"); c.ExitCode != 137 || c.Cgroup.Path() != d.Cgroup+"/one" {
		t.Errorf("a stopping container has exit code %d, cgroup %q", c.ExitCode, c.Cgroup.Path())
	}
	must(t)(d.Ctr(t.Context(), "default", "tasks", "rm", "inv-one"))
	await(t, v, "end of the task", hasState("inv-one", container.Exited))
	must(t)(d.Ctr(t.Context(), "default", "containers", "rm", "inv-one"))
	soon(t, "removal", await(t, v, "removal", buried("inv-one")), within)

	must(t)(d.Ctr(t.Context(), "other", "image", "import", filepath.Join(filepath.Dir(d.Address), "busybox-oci.tar")))
	must(t)(d.Ctr(t.Context(), "other", "run", "-d", "--null-io", "--cgroup", d.Cgroup+"/two", "--label", "story=told", daemons.BusyboxName, "inv-two", "sleep", "1000"))
	await(t, v, "a container in a new namespace", hasState("inv-two", container.Running))
	crash(t, v, "containerd", "inv-two", d.Kill, func() error { return d.Start(t.Context()) })
}

// crash kills a runtime and brings it back; meanwhile its container must be kept.
func crash(t *testing.T, v *container.Inventory, r container.Runtime, name string, kill func(), start func() error) {
	t.Helper()
	kill()
	took := await(t, v, "silence", answered(r, false))
	t.Logf("silence was seen %s after the kill", took.Round(time.Millisecond))
	if find(v.Snapshot(), name) == nil {
		t.Errorf("%s was dropped when %s was killed", name, r)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	took = await(t, v, "return", answered(r, true))
	t.Logf("return was seen %s after it", took.Round(time.Millisecond))
	if took > hosttest.Bound(3*time.Second) {
		t.Errorf("the return of %s was seen after %s, want within 3 s", r, took)
	}
	if find(v.Snapshot(), name) == nil {
		t.Errorf("%s was dropped when %s came back", name, r)
	}
}

func TestARuntimeThatHangsIsUnanswered(t *testing.T) {
	d := hosttest.Containerd(t, false)
	run := t.TempDir()
	place(t, run, "containerd/containerd.sock", d.Address)
	v := inventory(t, run)
	must(t)(d.Ctr(t.Context(), "default", "containers", "create", daemons.BusyboxName, "inv-kept"))
	await(t, v, "container", hasState("inv-kept", container.Created))
	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	took := await(t, v, "silence", answered("containerd", false))
	t.Logf("a stopped containerd was called unanswered after %s", took)
	if took > hosttest.Bound(8*time.Second) { // a ping every five seconds, two seconds of patience
		t.Errorf("unanswered after %s", took)
	}
	if find(v.Snapshot(), "inv-kept") == nil {
		t.Error("the container was dropped")
	}
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	await(t, v, "return", answered("containerd", true))
}

func TestDockerEngineIsFoundAndFollowed(t *testing.T) {
	d := hosttest.Dockerd(t, nil)
	run := t.TempDir()
	place(t, run, "docker.sock", d.Socket)
	// Docker's own containerd knows the same containers; they must appear once.
	place(t, run, "containerd/containerd.sock", filepath.Join(filepath.Dir(d.Socket), "exec/containerd/containerd.sock"))
	engine(t, d, inventory(t, run), "docker", within, container.DockerJSON)
}

func TestPodmanIsFoundAndFollowed(t *testing.T) {
	d := hosttest.PodmanAPI(t)
	run := t.TempDir()
	place(t, run, "podman/podman.sock", d.Socket)
	// Podman reads its events file four times a second, so an event may be that late.
	engine(t, d, inventory(t, run), "podman", within, container.CRI)
}

// engine is the story that every daemon of the Docker API must tell.
func engine(t *testing.T, d *daemons.APIDaemon, v *container.Inventory, r container.Runtime, within time.Duration, format container.LogFormat) {
	t.Helper()
	await(t, v, "the engine", answered(r, true))
	args := []string{"run", "-d", "--name", "inv-api", "--label", "story=told", "--net", "none", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50",
		"-v", "inv-data:/data", "-v", "/tmp:/host:ro"}
	if r == "podman" {
		args = append(args, "--cgroup-parent", d.Cgroup, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
	}
	id := must(t)(d.Client(t.Context(), append(args, "bb", "sh", "-c", "echo hello; sleep 1000")...))
	soon(t, "start", await(t, v, "start", hasState("inv-api", container.Running)), within)
	c := find(v.Snapshot(), "inv-api")
	if string(c.ID) != id || c.Runtime != r || c.Namespace != "" || c.PID == 0 || c.NetNS.IsZero() || !strings.Contains(c.Cgroup.Path(), id) || c.Started.IsZero() {
		t.Errorf("identity or the kernel's side is wrong: %+v", c)
	}
	if c.Limits != (container.Limits{MemoryBytes: 64 << 20, CPUs: 0.5, Pids: 50}) {
		t.Errorf("limits are %+v", c.Limits)
	}
	if c.Log.Format != format {
		t.Errorf("log is %+v, want format %s", c.Log, format)
	}
	if b, err := os.ReadFile(c.Log.Path); err != nil || !strings.Contains(string(b), "hello") {
		t.Errorf("log %s has %q: %v", c.Log.Path, b, err)
	}
	if _, err := os.Stat(c.Rootfs.Upper); err != nil {
		t.Errorf("root is %+v: %v", c.Rootfs, err)
	}
	if m := fmt.Sprintf("%+v", c.Mounts); !strings.Contains(m, "Name:inv-data") || !strings.Contains(m, "Source:/tmp Destination:/host ReadOnly:true") {
		t.Errorf("mounts are %s", m)
	}
	if n := count(v.Snapshot(), container.ID(id)); n != 1 {
		t.Errorf("the container is listed %d times: %+v", n, v.Snapshot().Containers)
	}
	must(t)(d.Client(t.Context(), "pause", "inv-api"))
	await(t, v, "pause", hasState("inv-api", container.Paused))
	must(t)(d.Client(t.Context(), "unpause", "inv-api"))
	await(t, v, "unpause", hasState("inv-api", container.Running))
	must(t)(d.Client(t.Context(), "kill", "inv-api"))
	soon(t, "exit", await(t, v, "exit", hasState("inv-api", container.Exited)), within)
	must(t)(d.Client(t.Context(), "rm", "inv-api"))
	soon(t, "removal", await(t, v, "removal", buried("inv-api")), within)
	for _, g := range v.Snapshot().Gone {
		if g.Runtime != r {
			t.Errorf("a tombstone of %s: %+v", g.Runtime, g)
		}
	}
	must(t)(d.Client(t.Context(), "create", "--name", "inv-kept", "--net", "none", "bb", "sleep", "1000"))
	await(t, v, "creation", hasState("inv-kept", container.Created))
	crash(t, v, r, "inv-kept", d.Kill, func() error { return d.Start(t.Context()) })
}

func count(s *container.Snapshot, id container.ID) (n int) {
	for _, c := range s.Containers {
		if c.ID == id {
			n++
		}
	}
	return n
}
