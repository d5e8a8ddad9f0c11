//go:build kernel

package logship

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pods "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// document is a record as the ndjson sink writes it.
type document struct {
	Message, Stream, Host, Runtime, ID, Name, Image, Namespace, Pod string
	Labels                                                          map[string]string
}

// raw gives the lines of a body as they are.
func raw(body []byte) (out []string, err error) {
	for line := range bytes.Lines(body) {
		out = append(out, string(bytes.TrimRight(line, "\n")))
	}
	return out, nil
}

const (
	jobs      = 4 // at the same time
	jobScript = "for k in 0 1 2 3 4; do echo job %[1]d line $((%[1]d0 + k)); done; for k in 5 6 7 8 9; do echo job %[1]d line $((%[1]d0 + k)) >&2; done"
)

// vanish runs n containers that write ten lines each and are removed, and checks that each line arrived once with what
// is known of its container. want gives that for job i, but for id and stream.
func vanish(t *testing.T, n int, inv *container.Inventory, job func(i int) error, want func(i int) document) {
	t.Helper()
	dir := t.TempDir()
	h := &sinktest.HTTP{Decode: raw}
	h.Start(t)
	s := run(t, dir, Config{Pins: "auto", Sinks: []SinkConfig{{Name: "sure", Type: "ndjson", URL: h.URL}}}, inv)
	work := make(chan int)
	var workers sync.WaitGroup
	for range jobs {
		workers.Go(func() {
			for i := range work {
				if err := job(i); err != nil {
					t.Errorf("job %d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	workers.Wait()
	defer func() {
		if t.Failed() {
			t.Logf("%d of %d lines; %+v", len(h.Received()), 10*n, s.Streams())
		}
	}()
	eventually(t, "all lines", func() bool { return len(h.Received()) >= 10*n })
	eventually(t, "all streams are closed", func() bool { return len(s.Streams()) == 0 })
	seen := make([]int, 10*n)
	ids := map[string]int{}
	for _, line := range h.Received() {
		var d document
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		var job, number int
		if _, err := fmt.Sscanf(d.Message, "job %d line %d", &job, &number); err != nil || number/10 != job || job >= n {
			t.Fatalf("%v in %s", err, line)
		}
		seen[number]++
		w := want(job)
		w.Message, w.Host, w.ID, w.Stream = d.Message, "web1", d.ID, "stdout"
		if number%10 > 4 {
			w.Stream = "stderr"
		}
		if diff := cmp.Diff(w, d); diff != "" {
			t.Fatalf("job %d (-want +got):\n%s", job, diff)
		}
		if other, have := ids[d.ID]; len(d.ID) != 64 || have && other != job {
			t.Fatalf("job %d has the id %q, and so has job %d", job, d.ID, other)
		}
		ids[d.ID] = job
	}
	for number, times := range seen {
		if times != 1 {
			t.Errorf("line %d came %d times", number, times)
		}
	}
}

// runtimeOf gives the one runtime of a kind.
func runtimeOf(t *testing.T, inv *container.Inventory, kind string) string {
	t.Helper()
	for _, r := range inv.Snapshot().Runtimes {
		if strings.HasPrefix(string(r.Name), kind) {
			return string(r.Name)
		}
	}
	t.Fatalf("no runtime %s", kind)
	return ""
}

func TestDockerContainersThatWriteTenLinesAndVanishAreReadToTheLastLine(t *testing.T) {
	d := hosttest.Dockerd(t, nil)
	inv := realInventory(t, d.Socket)
	name := runtimeOf(t, inv, "docker")
	vanish(t, bounded(15, 200), inv, func(i int) error {
		_, err := d.Client(t.Context(), "run", "--rm", "--network", "none", "--name", fmt.Sprintf("job%d", i), "--label", fmt.Sprintf("job=%d", i),
			"--label", "tier=batch", "bb", "sh", "-c", fmt.Sprintf(jobScript, i))
		return err
	}, func(i int) document {
		return document{Runtime: name, Name: fmt.Sprintf("job%d", i), Image: "bb", Labels: map[string]string{"job": fmt.Sprint(i), "tier": "batch"}}
	})
}

func TestPodsContainersThatWriteTenLinesAndVanishAreReadToTheLastLine(t *testing.T) {
	d := hosttest.Containerd(t, true)
	inv := realInventory(t, d.Address)
	eventually(t, "the pods' runtime", func() bool { return inv.Snapshot().Answered("cri") || len(inv.Snapshot().Runtimes) == 2 })
	name := runtimeOf(t, inv, "cri")
	conn, err := d.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pods.NewRuntimeServiceClient(conn)
	logs := filepath.Join(filepath.Dir(d.Address), "podlogs")
	pod := &pods.PodSandboxConfig{Metadata: &pods.PodSandboxMetadata{Name: "night", Namespace: "shop", Uid: "u-1"}, LogDirectory: logs,
		Labels: map[string]string{"io.kubernetes.pod.name": "night", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1"},
		Linux: &pods.LinuxPodSandboxConfig{CgroupParent: d.Cgroup, SecurityContext: &pods.LinuxSandboxSecurityContext{
			NamespaceOptions: &pods.NamespaceOption{Network: pods.NamespaceMode_NODE}}}}
	sandbox, err := client.RunPodSandbox(t.Context(), &pods.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	labels := func(i int) map[string]string {
		return map[string]string{"job": fmt.Sprint(i), "tier": "batch", "io.kubernetes.container.name": fmt.Sprintf("job%d", i),
			"io.kubernetes.pod.name": "night", "io.kubernetes.pod.namespace": "shop"}
	}
	vanish(t, bounded(10, 200), inv, func(i int) error {
		made, err := client.CreateContainer(t.Context(), &pods.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, SandboxConfig: pod, Config: &pods.ContainerConfig{
			Metadata: &pods.ContainerMetadata{Name: fmt.Sprintf("job%d", i)}, Image: &pods.ImageSpec{Image: daemons.BusyboxName},
			Command: []string{"/bin/sh", "-c", fmt.Sprintf(jobScript, i)}, LogPath: fmt.Sprintf("job%d/0.log", i), Labels: labels(i)}})
		if err != nil {
			return err
		}
		if _, err := client.StartContainer(t.Context(), &pods.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
			return err
		}
		for ended := false; !ended; time.Sleep(2 * time.Millisecond) {
			s, err := client.ContainerStatus(t.Context(), &pods.ContainerStatusRequest{ContainerId: made.ContainerId})
			if err != nil {
				return err
			}
			ended = s.Status.State == pods.ContainerState_CONTAINER_EXITED
		}
		if _, err := client.RemoveContainer(t.Context(), &pods.RemoveContainerRequest{ContainerId: made.ContainerId}); err != nil {
			return err
		}
		return os.RemoveAll(filepath.Join(logs, fmt.Sprintf("job%d", i))) // as kubelet does
	}, func(i int) document {
		return document{Runtime: name, Name: fmt.Sprintf("job%d", i), Image: daemons.BusyboxName, Namespace: "shop", Pod: "night", Labels: labels(i)}
	})
}
