//go:build kernel

package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// A layer of so many files is walked in the background for a long time. Fewer than a million show the same, since a scrape
// waits for none of them.
func TestALayerOfManyFilesHoldsNoScrapeUp(t *testing.T) {
	const files, dirs = 200_000, 20
	layer := hosttest.Tmpfs(t, "400m")
	for d := range dirs {
		dir := filepath.Join(layer, strconv.Itoa(d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range files / dirs {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	g := newCgroup(t, "layer")
	c := container.Container{ID: "layer", Runtime: "docker", State: container.Running, Cgroup: g.member, Rootfs: container.Rootfs{Upper: layer}}
	m, _ := measuring(t, c, "disk")
	took := func() time.Duration {
		began := time.Now()
		for range 20 {
			if got := value(t, m, "container_threads"); got != 0 {
				t.Errorf("%v threads", got)
			}
		}
		return time.Since(began) / 20
	}
	before := took()
	var walk sync.WaitGroup
	walk.Go(func() { m.disk.Run(t.Context()) })
	t.Cleanup(walk.Wait)
	during := took()
	if got := series(t, m, "container_fs_usage_"); len(got) != 0 {
		t.Errorf("the walk was over before the scrapes: %v", got)
	}
	if left := m.cost.leftOut.Value(); left != 0 {
		t.Errorf("%d left out", left)
	}
	t.Logf("a scrape took %v, and %v while %d files were walked", before, during, files)
}

// One container is restarted a hundred times: each time another process, and another cgroup of the same name.
func TestAHundredRestartsLeaveOneSeriesAndNoDescriptor(t *testing.T) {
	g := newCgroup(t, "restarts")
	m, inv := measuring(t, container.Container{})
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	first := 0
	for i := range 100 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			p := g.start(t)
			inv.publish(container.Container{ID: "restarts", Name: "restarts", Runtime: "docker", State: container.Running, PID: p.pid, Cgroup: g.member,
				Started: time.Unix(int64(i), 0), Restarts: i})
			if got := value(t, m, "container_processes"); got != 1 { // which fails when there are two
				t.Errorf("%v processes", got)
			}
			if got := value(t, m, "container_restarts_total"); got != float64(i) {
				t.Errorf("%v restarts, want %d", got, i)
			}
			if got := len(series(t, m, "container_ended_cpu_usage_seconds")); got != min(i, 1) {
				t.Errorf("%d last samples", got)
			}
		})
		for _, dir := range g.dirs {
			if err := g.remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
		}
		switch now := open(); {
		case i == 2:
			first = now
		case i > 2 && now > first+2: // some moments the runtime has one more
			t.Fatalf("restart %d: %d descriptors, %d after the second", i, now, first)
		}
	}
	if missed := m.cost.missed.Value(); missed != 0 {
		t.Errorf("%d missed", missed)
	}
}

// A runtime that hangs, and one that is dead, is not asked by a scrape: what its containers use is read as ever.
func TestContainersAreMeasuredWhileTheirRuntimeHangsAndWhileItIsDead(t *testing.T) {
	hosttest.Require(t, "containerd", "ctr", "runc", "busybox")
	d := hosttest.Containerd(t, false)
	m, ctx := agentFor(t, d)
	id := fmt.Sprintf("silent-%d", os.Getpid())
	if out, err := d.Ctr(ctx, "default", "run", "-d", daemons.BusyboxName, id, "/bin/sh", "-c", "while :; do :; done"); err != nil {
		t.Fatal(err, out)
	}
	cpu := func() float64 {
		for deadline := time.Now().Add(hosttest.Bound(20 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
			for _, v := range series(t, m, "container_cpu_usage_seconds_total{") {
				n, err := strconv.ParseFloat(v, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			if time.Now().After(deadline) {
				t.Fatal("it is not on the page")
			}
		}
	}
	grows := func(what string) {
		t.Helper()
		before := cpu()
		for deadline := time.Now().Add(hosttest.Bound(20 * time.Second)); cpu() <= before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("while its runtime is %s its CPU time stands still", what)
			}
		}
	}
	grows("well")
	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	grows("hanging")
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	grows("dead")
	if missed := m.cost.missed.Value(); missed != 0 {
		t.Errorf("%d taken for ended", missed)
	}
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	grows("back")
}
