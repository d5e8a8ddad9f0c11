package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/store"
	"github.com/fairlead-dev/fairlead/test/daemons"
)

// patience is how long all may take to agree once all is well again.
const patience = time.Minute

// atOnce is how many histories run at one time: they wait more than they work.
const atOnce = 40

// clients plays histories of the real etcd client with a real etcd, a process of ours (one in this process would bring
// etcd's server into go.mod, and tells no more): wires that are cut, slow or break, agents that die between any two
// writes to their disk and leave requests on the wire, hosts that reboot and leave, etcd that is stopped for a while or
// dies. Clocks that jump are the model's: the client has none that matters, etcd counts the sessions.
func clients(ctx context.Context, histories int, seed uint64, out *result) (err error) {
	dir, err := os.MkdirTemp("", "fl-soak-overlay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	address, err := freeAddress()
	if err != nil {
		return err
	}
	etcd, err := daemons.Etcd(ctx, daemons.Options{Dir: dir, Address: address})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, etcd.Stop(context.WithoutCancel(ctx))) }()
	for done := 0; done < histories && err == nil; done += atOnce {
		var batch []*history
		for n := range min(atOnce, histories-done) {
			batch = append(batch, newHistory(seed+uint64(done+n), address))
		}
		err = play(ctx, batch, etcd, out)
	}
	return err
}

// play plays histories at one time: a storm, in which etcd comes and goes too, and then all is well.
func play(ctx context.Context, batch []*history, etcd *daemons.EtcdDaemon, out *result) (err error) {
	errs := make([]error, len(batch))
	together := func(do func(*history) error) {
		var running sync.WaitGroup
		for i, h := range batch {
			running.Go(func() { errs[i] = errors.Join(errs[i], do(h)) })
		}
		running.Wait()
	}
	weather, calm := context.WithCancel(ctx)
	var stormy sync.WaitGroup
	stormy.Go(func() { err = storm(weather, etcd, rand.New(rand.NewPCG(batch[0].seed, 2))) })
	together(func(h *history) error { return h.storm(ctx) })
	calm()
	stormy.Wait()
	together(func(h *history) error { return h.settle(ctx) })
	together(func(h *history) error { h.end(); return nil })
	for i, h := range batch {
		out.Clients++
		out.DoubleOwners += len(h.doubles)
		if errs[i] != nil {
			out.Unsettled++
		}
		if errs[i] != nil || len(h.doubles) > 0 {
			out.bad("history of clients, seed %d: %v %s\n%s", h.seed, errs[i], strings.Join(h.doubles, ", "), strings.Join(h.told, "\n"))
		}
	}
	return errors.Join(err, ctx.Err())
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// storm stops etcd for a while, or ends it as a crash does and starts it again, until ctx ends.
func storm(ctx context.Context, etcd *daemons.EtcdDaemon, rng *rand.Rand) error {
	for pause(ctx, time.Duration(1000+rng.IntN(4000))*time.Millisecond) {
		if rng.IntN(2) == 0 {
			if err := etcd.Pause(); err != nil {
				return err
			}
			pause(ctx, time.Duration(rng.IntN(2000))*time.Millisecond)
			if err := etcd.Resume(); err != nil {
				return err
			}
			continue
		}
		etcd.Kill()
		pause(ctx, time.Duration(rng.IntN(1000))*time.Millisecond)
		if err := etcd.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// pause waits, and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func newHistory(seed uint64, etcd string) *history {
	h := &history{Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed, etcd: etcd, prefix: fmt.Sprintf("/soak/%d", seed), began: time.Now()}
	for i, name := range rivals(4) {
		h.machines = append(h.machines, &machine{h: h, name: name, n: i, disk: &disk{files: map[string][]byte{}}})
	}
	return h
}

// rivals are names of hosts that all want the same one of the eight blocks first: where a host begins to look follows
// from its name (overlay/store/candidate.go).
func rivals(n int) (names []string) {
	for i := 0; len(names) < n; i++ {
		name := fmt.Sprintf("web%d", i)
		h := fnv.New64a()
		_, _ = h.Write([]byte(name)) // a hash takes everything
		if h.Sum64()%8 == 0 {
			names = append(names, name)
		}
	}
	return names
}

// storm lets much happen.
func (h *history) storm(ctx context.Context) error {
	for range 40 {
		if err := h.happen(ctx); err != nil {
			return err
		}
		if !pause(ctx, time.Duration(h.IntN(150))*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

func (h *history) end() {
	for _, m := range h.machines {
		if m.agent != nil {
			m.stopInOrder()
		}
	}
	for _, g := range h.ghosts {
		g.end()
	}
}

// happen does one thing at random.
func (h *history) happen(ctx context.Context) error {
	m := h.machines[h.IntN(len(h.machines))]
	if !m.alive() {
		if m.agent != nil {
			m.crash() // it died at a write
		}
		writes := -1
		if h.IntN(3) == 0 {
			writes = h.IntN(6)
		}
		reboot := h.IntN(3) == 0
		h.tell("%s: starts, reboot %t, dies after %d writes", m.name, reboot, writes)
		return m.start(reboot, writes, h.IntN(2) == 0)
	}
	switch h.IntN(10) {
	case 0, 1:
		h.tell("%s: cut", m.name)
		m.agent.wire.cut()
	case 2:
		h.tell("%s: slow", m.name)
		m.agent.wire.delay(h.Rand)
	case 3:
		h.tell("%s: connections lost", m.name)
		m.agent.wire.lose()
	case 4, 5:
		h.tell("%s: crashes", m.name)
		m.crash()
	case 6:
		m.leave(ctx)
	case 7:
		m.agent.Want(store.Wants{Networks: []store.Network{small()}, Blocks: map[string]int{"blue": 1 + h.IntN(2)}})
	default:
		h.tell("%s: healed", m.name)
		m.agent.wire.heal()
	}
	if len(h.ghosts) > 0 && h.IntN(3) == 0 {
		h.ghosts[0].heal() // what a dead agent sent arrives now
	}
	return nil
}

// settle makes all well and waits until every host holds a block, and all know it of each other.
func (h *history) settle(ctx context.Context) error {
	h.tell("all is well again")
	for _, g := range h.ghosts {
		g.heal()
	}
	last := errUnsettled
	for began := time.Now(); time.Since(began) < patience; {
		for _, m := range h.machines {
			if !m.alive() {
				if m.agent != nil {
					m.crash()
				}
				if err := m.start(false, -1, false); err != nil {
					return err
				}
			}
			m.agent.wire.heal()
		}
		if last = h.agree(); last == nil || !pause(ctx, 20*time.Millisecond) {
			return last
		}
	}
	return last
}

// agree tells what one host believes of another that it does not believe of itself.
func (h *history) agree() error {
	known := map[string]store.Cluster{}
	for _, m := range h.machines {
		m.mu.Lock()
		known[m.name] = m.last
		m.mu.Unlock()
	}
	for name, c := range known {
		if len(c.Self.Blocks) == 0 || len(c.Peers) != len(h.machines)-1 {
			return fmt.Errorf("%w: %s knows %+v", errUnsettled, name, c)
		}
		for _, p := range c.Peers {
			if self := known[p.Name].Self; p.Silent || !slices.Equal(p.Blocks, self.Blocks) {
				return fmt.Errorf("%w: %s believes %+v, which believes %+v", errUnsettled, name, p, self)
			}
		}
	}
	return nil
}
