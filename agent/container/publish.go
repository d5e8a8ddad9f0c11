package container

import (
	"context"
	"time"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

// pace is the least time between two publications: a burst of events becomes few snapshots. On a host where one takes
// long they are fewer still: share of the time at rest for each part of it at work.
const (
	pace  = 20 * time.Millisecond
	share = 19
)

// publish makes a snapshot whenever something changed.
func (v *Inventory) publish(ctx context.Context) error {
	defer v.kernel.close()
	published := v.stat.Counter("fairlead_container_publications_total", "Snapshots of all containers that were published.")
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.dirty:
		}
		began := time.Now()
		v.publishOnce(began)
		published.Inc()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(pace, share*time.Since(began))):
		}
	}
}

func (v *Inventory) publishOnce(now time.Time) {
	before := v.Snapshot()
	v.mu.Lock()
	entries := merge(v.views)
	gone := v.gone
	v.gone = nil
	var runtimes []RuntimeState
	for _, w := range byRank(v.views) {
		w.state.Count = len(w.containers)
		runtimes = append(runtimes, w.state)
	}
	for i := range gone {
		remember(&gone[i].Container, before)
	}
	tombs := bury(before.Gone, gone, v.views, now)
	v.mu.Unlock()

	containers := join(v.kernel.enrich(entries), v.board.Attachments())
	retain(containers, before)
	next := newSnapshot(now, before.Seq+1, containers)
	next.Runtimes = runtimes
	next.Gone = append(tombs, unplugged(before.Containers, containers, now)...)
	for _, r := range runtimes {
		v.stat.Gauge("fairlead_container_containers", "Containers that the runtime listed last, running or not.", runtimeLabel(r.Name)).Set(float64(r.Count))
	}
	n := &news{snapshot: next, next: make(chan struct{})}
	close(v.news.Swap(n).next)
}

// retain keeps on exited containers what was last known of their cgroup and addresses: their last lines and samples are
// still on the way. Their network namespace is not kept, because its number may belong to another one by now.
func retain(containers []Container, before *Snapshot) {
	for i := range containers {
		c := &containers[i]
		if c.State != Exited {
			continue
		}
		if last, ok := before.Get(c.Runtime, c.ID); ok && last.Namespace == c.Namespace {
			c.Cgroup, c.Attachments = last.Cgroup, last.Attachments
		}
	}
}

// remember gives a tombstone what the kernel and the board said of the container when it was last published.
func remember(c *Container, before *Snapshot) {
	last, ok := before.Get(c.Runtime, c.ID)
	if ok && last.Namespace == c.Namespace {
		c.Cgroup, c.NetNS, c.Links, c.Attachments = last.Cgroup, last.NetNS, last.Links, last.Attachments
	}
}

func runtimeLabel(r Runtime) stat.Label { return stat.Label{Name: "runtime", Value: string(r)} }
