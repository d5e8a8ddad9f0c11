//go:build kernel

package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/store"
	"github.com/fairlead-dev/fairlead/overlay/store/storetest"
)

// BenchmarkHundredNodesJoin has a hundred clients, all in this process, join one etcd: one after the other, so that a
// time is one host's, and then all at once after a restart. Then it counts what they ask while nothing happens.
//
//	go test -tags=kernel -run '^$' -bench Hundred -benchtime 1x ./overlay/store
func BenchmarkHundredNodesJoin(b *testing.B) {
	for range b.N {
		c := newCluster(b)
		c.cfg.Session = store.DefaultEtcdConfig().Session
		first := storetest.Follow(b, c.agent(c.machine("web0", 0)))
		first.Until("the first", joined(0))
		const nodes = 100
		var machines []*machine
		for i := 1; i < nodes; i++ {
			machines = append(machines, c.machine(fmt.Sprintf("web%d", i), i))
		}
		var hosts []*storetest.Host
		var took []time.Duration
		holds := func(c store.Cluster) bool { return len(c.Self.Blocks) > 0 }
		for _, m := range machines {
			began := time.Now()
			h := storetest.Follow(b, c.agent(m))
			h.Until("a block", holds)
			took, hosts = append(took, time.Since(began)), append(hosts, h)
		}
		first.Until("all", joined(nodes-1))
		report(b, took, "join")
		if slowest := took[len(took)-1]; slowest > 2*time.Second {
			b.Errorf("a host took %s to join", slowest)
		}
		for _, h := range hosts {
			h.Stop()
		}
		took, hosts = make([]time.Duration, len(machines)), nil
		var all sync.WaitGroup
		began := time.Now()
		for i, m := range machines {
			h := storetest.Follow(b, c.agent(m))
			hosts = append(hosts, h)
			all.Go(func() {
				h.Until("a block", holds)
				took[i] = time.Since(began)
			})
		}
		all.Wait()
		first.Until("all again", joined(nodes-1))
		report(b, took, "together")
		before := c.requests(machines)
		const idle = 20 * time.Second
		pause(b.Context(), idle)
		b.ReportMetric((c.requests(machines)-before)/float64(len(machines))*float64(time.Minute/idle), "requests/node/min")
		b.ReportMetric(0, "ns/op")
		for _, h := range hosts {
			h.Stop()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func report(b *testing.B, took []time.Duration, what string) {
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, what+"-median-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, what+"-slowest-ms")
}

// requests sums what the clients of machines have asked.
func (c *cluster) requests(machines []*machine) (n float64) {
	for _, m := range machines {
		for _, f := range m.stats.Families() {
			if f.Name == "fairlead_overlay_store_requests_total" {
				n += f.Samples[0].Value
			}
		}
	}
	return n
}
