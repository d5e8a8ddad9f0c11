//go:build kernel

package container_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

const (
	many        = 500
	manyRunning = 20 // each has a shim of its own, which takes memory and none of our time
)

// fill makes containers until there are many; the running ones are real, the others have the same records.
func fill(t *testing.T, d *daemons.ContainerdDaemon) (containersapi.ContainersClient, context.Context) {
	t.Helper()
	for i := range manyRunning {
		id := fmt.Sprintf("many-%03d", i)
		must(t)(d.Ctr(t.Context(), "default", "run", "-d", "--null-io", "--cgroup", d.Cgroup+"/"+id, daemons.BusyboxName, id))
	}
	conn, err := d.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, conn) })
	client := containersapi.NewContainersClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "default")
	model, err := client.Get(ctx, &containersapi.GetContainerRequest{ID: "many-000"})
	if err != nil {
		t.Fatal(err)
	}
	for i := manyRunning; i < many; i++ {
		r := model.Container
		r.ID = fmt.Sprintf("many-%03d", i)
		if _, err := client.Create(ctx, &containersapi.CreateContainerRequest{Container: r}); err != nil {
			t.Fatal(err)
		}
	}
	return client, ctx
}

func closeConn(t *testing.T, conn *grpc.ClientConn) {
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestAmongFiveHundredContainersAChangeIsSeenAtOnceAndIdlingIsFree(t *testing.T) {
	d := hosttest.Containerd(t, false)
	client, ctx := fill(t, d)
	run := t.TempDir()
	place(t, run, "containerd/containerd.sock", d.Address)
	v := inventory(t, run)
	all := func(s *container.Snapshot) bool { return len(s.Containers) == many && s.Answered("containerd") }
	t.Logf("the first list of %d containers took %s", many, await(t, v, "all containers", all))

	name := "many-250"
	r, err := client.Get(ctx, &containersapi.GetContainerRequest{ID: name})
	if err != nil {
		t.Fatal(err)
	}
	r.Container.Labels = map[string]string{"changed": "yes"}
	if _, err := client.Update(ctx, &containersapi.UpdateContainerRequest{
		Container: r.Container, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
	}); err != nil {
		t.Fatal(err)
	}
	soon(t, "a label", await(t, v, "a label", func(s *container.Snapshot) bool { return find(s, name).Labels["changed"] == "yes" }), within)
	must(t)(d.Ctr(t.Context(), "default", "run", "-d", "--null-io", "--cgroup", d.Cgroup+"/new", daemons.BusyboxName, "many-new"))
	soon(t, "a start", await(t, v, "a start", hasState("many-new", container.Running)), within)
	must(t)(d.Ctr(t.Context(), "default", "tasks", "kill", "-s", "9", "many-new"))
	soon(t, "an exit", await(t, v, "an exit", hasState("many-new", container.Stopping)), within)

	// The subscription's second List comes after a second; idling begins then.
	time.Sleep(1500 * time.Millisecond)
	before, began := cpu(t), time.Now()
	time.Sleep(6 * time.Second) // what is measured is that nothing happens
	idle := float64(cpu(t)-before) / float64(time.Since(began))
	t.Logf("idle with %d containers: %.3f %% of a core", many, 100*idle)
	if idle > hosttest.Bound(5*time.Millisecond).Seconds() {
		t.Errorf("idle takes %.3f %% of a core, want less than 0.2 %%", 100*idle)
	}
}

// cpu is the processor time of this process so far.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
