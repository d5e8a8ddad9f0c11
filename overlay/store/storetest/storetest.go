// Package storetest is the suite that every store of the overlay passes, as far as the store claims.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/store"
)

// Host is one host's client of the store that is tested.
type Host struct {
	store.Store

	t     testing.TB
	stop  context.CancelFunc
	ended chan error

	mu      sync.Mutex
	last    *store.Cluster
	changed chan struct{} // closed, and replaced, with each publication
}

// Follow begins to follow the store, until the test ends or Stop.
func Follow(t testing.TB, s store.Store) *Host {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Host{Store: s, t: t, stop: cancel, ended: make(chan error, 1), changed: make(chan struct{})}
	go func() {
		h.ended <- s.Follow(ctx, func(c store.Cluster) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.last = &c
			close(h.changed)
			h.changed = make(chan struct{})
		})
	}()
	t.Cleanup(h.Stop)
	return h
}

// Stop ends following, as an agent that is stopped. It may be called twice.
func (h *Host) Stop() {
	h.stop()
	if err, first := <-h.ended; first {
		if err != nil {
			h.t.Errorf("follow: %v", err)
		}
		close(h.ended)
	}
}

// patience is how long the suite waits for what must come; nothing is measured by it.
const patience = 30 * time.Second

// Until waits until the cluster is as wanted and gives it.
func (h *Host) Until(what string, wanted func(store.Cluster) bool) store.Cluster {
	h.t.Helper()
	bound := time.NewTimer(patience)
	defer bound.Stop()
	for {
		h.mu.Lock()
		last, changed := h.last, h.changed
		h.mu.Unlock()
		if last != nil && wanted(*last) {
			return *last
		}
		select {
		case <-changed:
		case <-bound.C:
			h.t.Fatalf("%s: it is %+v", what, last)
		}
	}
}

// Run runs the suite. open gives the clients of two hosts, web1 and web2 (one alone for a store of one host), who have
// the network blue, 10.42.0.0/16, of which a shared store gives 10.42.240.0/20 address by address.
func Run(t *testing.T, open func(t *testing.T) []store.Store) {
	t.Run("every host is told at once who it is, and sees the others as they see themselves", func(t *testing.T) { agrees(t, open(t)) })
	t.Run("following ends with its context, and may begin again", func(t *testing.T) { again(t, open(t)) })
	t.Run("a network made on one host is on all, and one in use stays", func(t *testing.T) { networks(t, shared(t, open(t))) })
	t.Run("a dead host's blocks are given back by command only, a living one's by itself", func(t *testing.T) { leaving(t, shared(t, open(t))) })
	t.Run("a fixed address is one host's at a time, and is taken from a silent one by command only", func(t *testing.T) { addresses(t, shared(t, open(t))) })
}

func agrees(t *testing.T, stores []store.Store) {
	var hosts []*Host
	for _, s := range stores {
		hosts = append(hosts, Follow(t, s))
	}
	clusters := map[string]store.Cluster{}
	for _, h := range hosts {
		c := h.Until("all hosts with their blocks", func(c store.Cluster) bool {
			return len(c.Peers) == len(stores)-1 && (c.Alone || len(c.Self.Blocks) > 0) && !slices.ContainsFunc(c.Peers, func(p store.Node) bool { return len(p.Blocks) == 0 })
		})
		clusters[c.Self.Name] = c
	}
	if len(clusters) != len(stores) {
		t.Fatalf("hosts are called %v", clusters)
	}
	var all []netip.Prefix
	for _, c := range clusters {
		for _, b := range c.Self.Blocks {
			if slices.ContainsFunc(all, b.Overlaps) {
				t.Errorf("%s of %s is held by two", b, c.Self.Name)
			}
			all = append(all, b)
		}
		for _, p := range c.Peers {
			self := clusters[p.Name].Self
			if p.Addr != self.Addr || !slices.Equal(p.Blocks, self.Blocks) {
				t.Errorf("%s sees %+v, which sees itself as %+v", c.Self.Name, p, self)
			}
		}
	}
}

func again(t *testing.T, stores []store.Store) {
	settled := func(c store.Cluster) bool { return c.Alone || len(c.Self.Blocks) > 0 }
	h := Follow(t, stores[0])
	before := h.Until("blocks", settled)
	h.Stop()
	after := Follow(t, stores[0]).Until("blocks again", settled)
	if after.Self.Name != before.Self.Name || !slices.Equal(after.Self.Blocks, before.Self.Blocks) {
		t.Errorf("before %+v, after %+v", before.Self, after.Self)
	}
}

func shared(t *testing.T, stores []store.Store) []store.Shared {
	var out []store.Shared
	for _, s := range stores {
		sh, ok := s.(store.Shared)
		if !ok {
			t.Skipf("the store %s shares nothing", s.Name())
		}
		out = append(out, sh)
	}
	return out
}

func green() store.Network {
	return store.Network{Name: "green", CIDR: netip.MustParsePrefix("10.43.0.0/16"), CIDR6: netip.MustParsePrefix("fd43::/48"), VNI: 43, Block: 24, Block6: 64, Spec: json.RawMessage(`{"name":"green"}`)}
}

func networks(t *testing.T, stores []store.Shared) {
	web1, web2 := Follow(t, stores[0]), Follow(t, stores[1])
	has := func(n int) func(store.Cluster) bool {
		return func(c store.Cluster) bool { return len(c.Networks) == n && len(c.Self.Blocks) == 2*n-1 } // green has IPv6, too
	}
	web1.Until("blue", has(1))
	web2.Until("blue", has(1))
	agree := func([]store.Network) error { return nil }
	if err := stores[0].CreateNetwork(t.Context(), green(), agree); err != nil {
		t.Fatal(err)
	}
	if err := stores[1].CreateNetwork(t.Context(), green(), agree); err == nil {
		t.Error("green was made twice")
	}
	no := errors.New("no")
	if err := stores[1].CreateNetwork(t.Context(), store.Network{Name: "red"}, func(there []store.Network) error {
		if len(there) != 2 {
			t.Errorf("there are %+v", there)
		}
		return no
	}); !errors.Is(err, no) {
		t.Errorf("a network that was refused: %v", err)
	}
	c := web2.Until("green", has(2))
	if string(c.Networks[1].Spec) != `{"name":"green"}` {
		t.Errorf("green is %+v", c.Networks[1])
	}
	web1.Until("green", has(2))
	stores[1].Want(store.Wants{Uses: []string{"green"}})
	if err := stores[0].RemoveNetwork(t.Context(), "blue"); err != nil {
		t.Errorf("blue, which nobody uses: %v", err)
	}
	web2.Until("blue is gone", func(c store.Cluster) bool { return len(c.Networks) == 1 && c.Networks[0].Name == "green" })
	for began := time.Now(); ; { // that it is used is told in the background
		err := stores[0].RemoveNetwork(t.Context(), "green")
		if err != nil {
			if !strings.Contains(err.Error(), "web2") {
				t.Errorf("green, which web2 uses: %v", err)
			}
			return
		}
		if time.Since(began) > patience {
			t.Fatal("green is removed again and again, though web2 uses it")
		}
		if err := stores[0].CreateNetwork(t.Context(), green(), agree); err != nil {
			t.Fatal(err)
		}
	}
}

func leaving(t *testing.T, stores []store.Shared) {
	web1, web2 := Follow(t, stores[0]), Follow(t, stores[1])
	peer := func(blocks int, silent bool) func(store.Cluster) bool {
		return func(c store.Cluster) bool {
			return len(c.Peers) == 1 && len(c.Peers[0].Blocks) == blocks && c.Peers[0].Silent == silent
		}
	}
	gone := func(c store.Cluster) bool { return len(c.Peers) == 0 }
	web1.Until("web2", peer(1, false))
	before := web2.Until("web1", peer(1, false))
	var alive *store.AliveError
	if err := stores[0].ForgetNode(t.Context(), "web2"); !errors.As(err, &alive) {
		t.Fatalf("forget a living node: %v", err)
	}
	var unknown *store.UnknownNodeError
	if err := stores[0].ForgetNode(t.Context(), "web9"); !errors.As(err, &unknown) || !slices.Contains(unknown.Known, "web2") {
		t.Fatalf("forget an unknown node: %v", err)
	}
	web2.Stop()
	silent := web1.Until("web2 is silent and has its block", peer(1, true))
	if !slices.Equal(silent.Peers[0].Blocks, before.Self.Blocks) {
		t.Errorf("silent, it has %v instead of %v", silent.Peers[0].Blocks, before.Self.Blocks)
	}
	if err := stores[0].ForgetNode(t.Context(), "web2"); err != nil {
		t.Fatal(err)
	}
	web1.Until("web2 is forgotten", gone)
	web2 = Follow(t, stores[1])
	web2.Until("web2 is back", peer(1, false))
	web1.Until("web2 is back", peer(1, false))
	if err := stores[1].Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	web1.Until("web2 has left", gone)
	if c := web2.Until("web2 holds nothing", func(c store.Cluster) bool { return len(c.Self.Blocks) == 0 }); c.Problem == "" {
		t.Error("who has left is not told so")
	}
}
