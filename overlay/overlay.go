// Package overlay gives each container an address and a path to every other host.
//
//	door (CNI, ...) ─> Attach ─> plan.Attach ─> kernel.Apply      one attachment, the hot path
//	start, repair   ─> kernel.Observe ─> plan.Steps ─> kernel.Apply
//
// It owns the links, routes, neighbours, FDB entries and the nftables table that carry our marks (package plan), the
// address pools, and the attachment journal under its state directory. Traffic never depends on the agent: after
// kill -9 everything flows on, and the next start reads the journal and the kernel, finishes or undoes what was half
// done, and writes only what differs.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// Deps are what the overlay stands on.
type Deps struct {
	Log   *slog.Logger
	Stats *stat.Registry
	State *state.Dir // the overlay's own
	Root  host.Root
	Board interface {
		Publish([]container.Attachment)
	}
	// Containers tells GC what runtimes list; nil: nothing.
	Containers interface {
		Snapshot() *container.Snapshot
	}
	// NodeName is this host's identity; NodeAddr its address on the underlay, or invalid for that of the default route.
	NodeName string
	NodeAddr netip.Addr
	Version  string // of this build, for peers to see
}

// Overlay is the part. Its methods are safe for concurrent use.
type Overlay struct {
	cfg   Config
	deps  Deps
	store store.Store

	mu      sync.Mutex
	session *session      // nil while not running
	ready   chan struct{} // closed while session is there
	fault   error         // why the last session did not come up or ended

	attached, detached, repaired *stat.Counter
	spared, repathed             *stat.Counter
	attachments, free            *stat.Gauge
}

// New checks cfg against deps. It starts nothing and touches nothing.
func New(cfg Config, deps Deps) (*Overlay, error) {
	st, err := cfg.newStore(deps)
	if err != nil {
		return nil, err
	}
	o := &Overlay{cfg: cfg, deps: deps, store: st, ready: make(chan struct{})}
	o.attached = deps.Stats.Counter("fairlead_overlay_attachments_made_total", "Attachments made since the agent started.")
	o.detached = deps.Stats.Counter("fairlead_overlay_attachments_ended_total", "Attachments ended since the agent started, by DEL or because their namespace went.")
	o.repaired = deps.Stats.Counter("fairlead_overlay_repair_steps_total", "Kernel objects that were missing or changed and were put right after the start.")
	o.spared = deps.Stats.Counter("fairlead_overlay_gc_kept_total", "Attachments that CNI GC did not name as valid and that were kept because they are in use.")
	o.repathed = deps.Stats.Counter("fairlead_overlay_path_changes_total", "Changes of the path to a peer, between vxlan and direct, that probes have led to.")
	o.registerPeers()
	o.attachments = deps.Stats.Gauge("fairlead_overlay_attachments", "Attachments that there are now.")
	o.free = deps.Stats.Gauge("fairlead_overlay_addresses_free", "Addresses of this host's blocks that no container has.")
	return o, nil
}

// Run brings the host to the wanted state and keeps it there until ctx ends. It leaves everything in place when it
// returns: containers go on talking. It may be called again after it has returned.
func (o *Overlay) Run(ctx context.Context) (err error) {
	s, err := o.start(ctx)
	if err != nil {
		o.setFault(err)
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	o.setSession(s)
	defer o.clearSession()
	agent.Ready(ctx)
	return s.run(ctx)
}

func (o *Overlay) setSession(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.session, o.fault = s, nil
	close(o.ready)
}

func (o *Overlay) clearSession() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.session, o.ready = nil, make(chan struct{})
}

func (o *Overlay) setFault(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault = err
}

// ErrNotReady is returned while the overlay is starting, or cannot start; the cause is wrapped.
var ErrNotReady = errors.New("overlay is not ready")

// startWait is how long a call waits for an overlay that is just starting.
const startWait = 5 * time.Second

// current waits, for a bounded time, until the overlay is up.
func (o *Overlay) current(ctx context.Context) (*session, error) {
	o.mu.Lock()
	ready := o.ready
	o.mu.Unlock()
	timer := time.NewTimer(startWait)
	defer timer.Stop()
	select {
	case <-ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session != nil {
		return o.session, nil
	}
	if o.fault != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, o.fault)
	}
	return nil, ErrNotReady
}

// Ready returns nil once attachments can be made, after waiting a bounded time for it; else an error that wraps
// ErrNotReady.
func (o *Overlay) Ready(ctx context.Context) error {
	_, err := o.current(ctx)
	return err
}

// Request asks for one attachment. Every door turns what it was asked into this.
type Request struct {
	plan.Key
	Network string
	NS      plan.Namespace // open as long as the call lasts
	Addr    netip.Addr     // a fixed address, or invalid for any
	Addr6   netip.Addr     // the same for IPv6
	MAC     plan.MAC       // of the container's end; zero: derived from the address
	Ports   []plan.Port    // of the host, that lead to the container
	Runtime string         // whose container it is: the key "owner" of the CNI configuration; may be empty
}

// InvalidRequestError is a request that could never be served.
type InvalidRequestError struct{ Reason string }

func (e *InvalidRequestError) Error() string { return e.Reason }

var (
	// ownerForm is the CNI spec's form of a container id; its length leaves room in a link's alias, of which the
	// kernel keeps 255 bytes (IFALIASZ).
	ownerForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,119}$`)
	// ifNameForm is what the kernel takes for a device (dev_valid_name), and a little less.
	ifNameForm = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}$`)
)

func (r Request) validate() error {
	if !ownerForm.MatchString(r.Owner) {
		return &InvalidRequestError{fmt.Sprintf("container id: expected 1 to 120 letters, digits, '_', '.' and '-', beginning with a letter or digit, found %q", r.Owner)}
	}
	if !ifNameForm.MatchString(r.IfName) {
		return &InvalidRequestError{fmt.Sprintf("interface name: expected 1 to 15 letters, digits, '_', '.' and '-', found %q", r.IfName)}
	}
	if r.MAC[0]&1 != 0 {
		return &InvalidRequestError{fmt.Sprintf("mac: expected that of one station, found %s, which is a group's (its first byte is odd)", r.MAC)}
	}
	return nil
}

// UnknownNetworkError names the networks that there are.
type UnknownNetworkError struct {
	Name  string
	Known []string
}

func (e *UnknownNetworkError) Error() string {
	return fmt.Sprintf("no network %q on this host; there are %q", e.Name, e.Known)
}

// Attach gives a container an address on a network and a path to it. When it returns nil the first packet passes.
// Asking again for the same key, namespace and network gives the same attachment; when it fails nothing is left.
// It blocks for some milliseconds.
func (o *Overlay) Attach(ctx context.Context, r Request) (plan.Attachment, error) {
	if err := r.validate(); err != nil {
		return plan.Attachment{}, err
	}
	s, err := o.current(ctx)
	if err != nil {
		return plan.Attachment{}, err
	}
	a, err := s.attach(ctx, r)
	if err != nil {
		return plan.Attachment{}, fmt.Errorf("attach %s to %s: %w", r.Key, r.Network, err)
	}
	return a, nil
}

// Detach takes a container off its network; from its return on nothing passes its link. It succeeds when there is no
// such attachment. nsid, when it is not empty (NamespaceID), says of which namespace: an attachment of another one is
// a later container of the same name and stays.
func (o *Overlay) Detach(ctx context.Context, key plan.Key, nsid string) error {
	s, err := o.current(ctx)
	if err != nil {
		return err
	}
	if err := s.detach(ctx, key, nsid, "detached"); err != nil {
		return fmt.Errorf("detach %s: %w", key, err)
	}
	return nil
}

// SetPeers replaces the static list of hosts while the overlay runs. It fails for another store, and when this host's
// own entry changed.
func (o *Overlay) SetPeers(peers []Peer) error {
	static, ok := o.store.(*store.Static)
	if !ok {
		return fmt.Errorf("overlay.peers: store is %s, which takes no list", o.store.Name())
	}
	return static.Set(nodes(peers))
}

// Attachments gives all attachments, sorted by key.
func (o *Overlay) Attachments() []plan.Attachment {
	o.mu.Lock()
	s := o.session
	o.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.table.all()
}
