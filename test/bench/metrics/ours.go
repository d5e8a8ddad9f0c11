package main

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/heap"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/metrics"
)

// ours is the agent's own way: the inventory follows containerd, the metrics part follows the inventory.
func ours(ctx context.Context, containerd string) (http.Handler, error) {
	heap.KeepSmall() // as the agent does
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	stats := new(stat.Registry)
	inventory, err := container.New(container.Config{Run: filepath.Dir(containerd), Sockets: []string{containerd}},
		container.Deps{Host: host.DefaultRoot(), Log: log, Stat: stats})
	if err != nil {
		return nil, err
	}
	m, err := part(inventory, stats, log)
	if err != nil {
		return nil, err
	}
	for _, run := range []func(context.Context) error{inventory.Run, m.Run} {
		go func() {
			if err := run(ctx); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}()
	}
	return m.Handler(), nil
}

func part(inventory metrics.Inventory, stats *stat.Registry, log *slog.Logger) (*metrics.Metrics, error) {
	return metrics.New(metrics.DefaultConfig(), metrics.Deps{
		Inventory: inventory, Root: host.DefaultRoot(), Stats: stats, Log: log,
		Descriptors: host.NewDescriptors(nofile()).Holder("metrics", 90),
	})
}

// fixed is an inventory that never changes.
type fixed struct{ snap *container.Snapshot }

func (f fixed) Snapshot() *container.Snapshot { return f.snap }

func (f fixed) Follow(ctx context.Context) iter.Seq[*container.Snapshot] {
	return func(yield func(*container.Snapshot) bool) {
		if yield(f.snap) {
			<-ctx.Done()
		}
	}
}

// synthetic reads n real cgroups without containers in them, made by makeCgroups: how cost grows with their number is a
// question to the code and to the kernel, not to a runtime.
func synthetic(n int) (http.Handler, error) {
	snap := &container.Snapshot{Seq: 1, At: time.Now()}
	for i := range n {
		c := container.Container{
			ID: container.ID("growth" + strconv.Itoa(i)), Runtime: "containerd", State: container.Running, Image: image,
		}
		path := filepath.Join("/", growthName(os.Getppid()), strconv.Itoa(i))
		c.Cgroup = host.Membership{V1: map[string]string{}, Unified: path}
		for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "hugetlb"} {
			c.Cgroup.V1[controller] = path
		}
		snap.Containers = append(snap.Containers, c)
	}
	m, err := part(fixed{snap}, new(stat.Registry), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return m.Handler(), nil
}
