package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// machine is a host of a history: a disk, and now and then an agent's client of the store.
type machine struct {
	h    *history
	name string
	n    int
	boot int
	disk *disk

	agent *agent // nil: none runs

	mu      sync.Mutex // guards what follows
	last    store.Cluster
	claims  []netip.Prefix // the host's containers have addresses of these, until the agent says otherwise
	leaving bool
}

// agent is one life of the real client.
type agent struct {
	*store.Etcd
	wire  *proxy
	life  *life
	stop  context.CancelFunc
	ended chan struct{} // closed when Follow has returned
}

func small() store.Network {
	return store.Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/21"), VNI: 42, Block: 24, Spec: json.RawMessage(`{"name":"blue"}`)} // eight blocks
}

// start begins a life, which ends by itself after some writes to the disk when writes is not negative.
func (m *machine) start(reboot bool, writes int, late bool) error {
	wire, err := newProxy(m.h.etcd)
	if err != nil {
		return err
	}
	if reboot {
		m.boot++
		m.claim(store.Cluster{}) // its containers are gone
	}
	cfg := store.DefaultEtcdConfig()
	cfg.Endpoints, cfg.Prefix, cfg.Session, cfg.Grace = []string{wire.url()}, m.h.prefix, 2*time.Second, 2*time.Second
	a := &agent{wire: wire, life: &life{disk: m.disk, writes: writes, late: late}, ended: make(chan struct{})}
	a.Etcd = store.NewEtcd(cfg, store.EtcdDeps{Log: m.h.logger(m.name), Stats: &stat.Registry{}, State: a.life})
	a.Present(store.Identity{
		Name: m.name, Machine: m.name, Boot: fmt.Sprintf("%s-%d", m.name, m.boot), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + m.n)}), Agent: "soak",
	})
	a.Want(store.Wants{Networks: []store.Network{small()}})
	ctx, stop := context.WithCancel(context.Background())
	a.stop, m.agent, m.leaving = stop, a, false
	go func() {
		defer close(a.ended)
		err := a.Follow(ctx, m.claim)
		m.h.tell("%s: follow ended: %v", m.name, err)
	}()
	return nil
}

// claim takes what the agent believes, and looks whether another host believes to have the same.
func (m *machine) claim(c store.Cluster) {
	m.mu.Lock()
	m.last = c
	if !m.leaving {
		m.claims = c.Self.Blocks
	}
	m.mu.Unlock()
	m.h.look(m)
}

func (m *machine) holds() []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claims
}

// crash ends the agent as SIGKILL does. What it has sent may still arrive, when the wire is healed.
func (m *machine) crash() {
	a := m.agent
	a.wire.die()
	a.life.die()
	a.stop()
	<-a.ended
	m.h.ghosts = append(m.h.ghosts, a.wire)
	m.agent = nil
}

// stopInOrder ends the agent as SIGTERM does.
func (m *machine) stopInOrder() {
	m.agent.stop()
	<-m.agent.ended
	m.agent.wire.end()
	m.agent = nil
}

// leave gives all back. No container is on the host meanwhile. Where it does not come about the host has what it had.
func (m *machine) leave(ctx context.Context) {
	m.mu.Lock()
	m.leaving, m.claims = true, nil
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := m.agent.Leave(ctx)
	m.h.tell("%s: leaves: %v", m.name, err)
	if err == nil {
		m.stopInOrder()
		return
	}
	m.mu.Lock()
	m.leaving, m.claims = false, m.last.Self.Blocks
	m.mu.Unlock()
	m.h.look(m)
}

func (m *machine) alive() bool {
	if m.agent == nil || m.agent.life.died() {
		return false
	}
	select {
	case <-m.agent.ended:
		return false
	default:
		return true
	}
}

// history is a few machines with an etcd that goes on for others, too.
type history struct {
	*rand.Rand
	seed         uint64
	etcd, prefix string
	machines     []*machine
	ghosts       []*proxy // of agents that have died
	began        time.Time

	mu      sync.Mutex
	told    []string
	doubles []string
}

func (h *history) tell(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, fmt.Sprintf("%7.3f ", time.Since(h.began).Seconds())+fmt.Sprintf(format, args...))
}

// look notes when a block that m believes to hold is held by another, too. Nobody has forgotten a host or restored the
// store, so there is no moment at which that is right.
func (h *history) look(m *machine) {
	mine := m.holds()
	h.tell("%s: holds %v", m.name, mine)
	for _, o := range h.machines {
		if o == m {
			continue
		}
		for _, b := range o.holds() {
			if slices.ContainsFunc(mine, b.Overlaps) {
				h.mu.Lock()
				h.doubles = append(h.doubles, fmt.Sprintf("%s is held by %s and %s", b, m.name, o.name))
				h.mu.Unlock()
			}
		}
	}
}

func (h *history) logger(name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(lines{h, name}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lines struct {
	h    *history
	name string
}

func (l lines) Write(p []byte) (int, error) {
	_, text, _ := strings.Cut(strings.TrimSpace(string(p)), "level=")
	l.h.tell("%s: %s", l.name, text)
	return len(p), nil
}

var errUnsettled = errors.New("the hosts do not agree")
