package store

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

// Etcd is a cluster in an existing etcd (v3). It keeps one session and one watch.
//
//	Follow: grant session, read all ─> learn, decide ─> one write ─> its event ─> learn, decide ─> ...
type Etcd struct {
	cfg  EtcdConfig
	deps EtcdDeps

	mu      sync.Mutex
	self    Identity
	wants   Wants
	leaving *leave // not nil: to leave is asked for
	known   map[string]Lease
	held    []netip.Prefix // this host's blocks, as published, without those that are being given back
	claims  []*pending
	away    error // why claims are not heard

	changed chan struct{} // wants or leaving changed
	broken  chan struct{} // a connection to etcd was lost

	requests, resyncs *stat.Counter
	up                *stat.Gauge
	clientMu          sync.Mutex
	client            *clientv3.Client
}

// EtcdDeps are what an Etcd stands on.
type EtcdDeps struct {
	Log   *slog.Logger
	Stats *stat.Registry
	// State keeps what is known over restarts.
	State interface {
		WriteJSON(name string, v any) error
		ReadJSON(name string, v any) (bool, error)
	}
}

// memoryFile is what the state directory keeps.
const memoryFile = "etcd.json"

// NewEtcd makes a store of a valid configuration. It connects to nothing.
func NewEtcd(cfg EtcdConfig, deps EtcdDeps) *Etcd {
	cfg.Prefix += "/"
	return &Etcd{
		cfg: cfg, deps: deps, changed: make(chan struct{}, 1), broken: make(chan struct{}, 1),
		requests: deps.Stats.Counter("fairlead_overlay_store_requests_total", "Requests to etcd: reads, transactions, session grants and renewals."),
		resyncs:  deps.Stats.Counter("fairlead_overlay_store_reads_total", "Times that everything was read from etcd: at the start, and after a connection or a watch was lost."),
		up:       deps.Stats.Gauge("fairlead_overlay_store_up", "1 while this host has a session with etcd."),
	}
}

// Name is "etcd".
func (e *Etcd) Name() string { return "etcd" }

// Present says who this host is; see Shared.
func (e *Etcd) Present(self Identity) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.self = self
}

// Want says what this host needs; see Shared.
func (e *Etcd) Want(w Wants) {
	e.mu.Lock()
	same := reflect.DeepEqual(e.wants, w)
	e.wants = w
	e.mu.Unlock()
	if !same {
		poke(e.changed)
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func clusterID(id uint64) string { return fmt.Sprintf("%016x", id) }
