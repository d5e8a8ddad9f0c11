//go:build kernel

package main

import (
	"math/rand/v2"
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestClientsOfARealEtcdNeverHoldABlockTwice(t *testing.T) {
	t.Parallel()
	bounded(t, size{clients: 6})
}

func TestRandomRoundsWithHostsLeaveNothingStale(t *testing.T) {
	t.Parallel()
	bounded(t, size{rounds: 3})
}

func bounded(t *testing.T, n size) {
	t.Helper()
	hosttest.Root(t)
	hosttest.Require(t, "etcd", "etcdctl", "ip", "nft", "nsenter", "ping", "bridge")
	out := result{Seed: rand.Uint64()}
	err := soak(t.Context(), n, "", "", &out)
	for _, line := range out.faults {
		t.Error(line)
	}
	if err != nil || out.Clients != n.clients || out.Rounds != n.rounds {
		t.Errorf("seed %d: %+v: %v", out.Seed, out, err)
	}
}
