// Package reap finds what dead containers left behind and, when an operator says so, clears it away.
//
//	parts, detect/... ── Owned ──> resources ─┐
//	container.Snapshot ─── roots ─────────────┼─> Plan (pure) ─> verdicts ── orphans ls
//	Record (promise) ── what was seen before ─┘                     └─ clean --yes ─> checked again ─> Release | quarantine
//
// It is mark and sweep: what a container that a runtime lists may need is marked; of the rest, only what provably
// belonged to a container is swept, only when the runtime that would own it has given two complete lists without it, a
// grace time apart, and nothing lives in it. Doubt keeps, and each verdict says why.
//
// It owns the record of what was seen ownerless since when, the audit log and the quarantine, all under its state
// directory. What it is about to do is written down first; after kill -9 the next Run finishes it or says that it
// could not.
package reap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

// Kind is the kind of a resource. Kinds are swept in the order in which they stand here.
type Kind string

// The kinds.
const (
	Process    Kind = "process"    // a container's first process whose shim has died; never swept
	Shim       Kind = "shim"       // a runtime's minder of one container or pod
	Attachment Kind = "attachment" // an address, its route and its link
	Link       Kind = "link"       // a host link that is not the overlay's
	NetNS      Kind = "netns"      // a network namespace held by a file
	Lease      Kind = "lease"      // an address that another network plugin has noted as given out
	Mount      Kind = "mount"      // a container's root or part of it
	Cgroup     Kind = "cgroup"     // in all hierarchies
	State      Kind = "state"      // a runtime's directory about one container
	Log        Kind = "log"        // what is kept of a container's log until every sink has it
	Other      Kind = "other"
)

var order = []Kind{Process, Shim, Attachment, Link, NetNS, Lease, Mount, Cgroup, State, Log}

func (k Kind) rank() int {
	if i := slices.Index(order, k); i >= 0 {
		return i
	}
	return len(order)
}

// Resource is one thing on the host that a container has, or had.
type Resource struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"` // unique within the kind: a path, a name, a key
	// Instance tells this one from a later one with the same ID: an inode, a start time, a cookie. A resource with
	// another instance has never been seen before.
	Instance string    `json:"instance,omitempty"`
	Source   string    `json:"source,omitempty"` // which Owner gave it; filled by the Reaper
	Claim    Claim     `json:"claim,omitzero"`
	Where    string    `json:"where,omitempty"` // where a person finds it, when ID does not say so
	Since    time.Time `json:"since,omitzero"`  // not younger than this, as far as the host shows
	Size     int64     `json:"size,omitempty"`  // bytes that a sweep would free
	PIDs     []int     `json:"pids,omitempty"`  // processes that live in it; never swept while there is one
	Evidence []string  `json:"evidence,omitempty"`

	// Adrift marks a process that lives on although its shim is dead: always worth a line, never swept.
	Adrift bool `json:"adrift,omitempty"`
	// Weak says that nothing in the resource shows that a container ever had it. It is passed over unless one was seen
	// to have it.
	Weak bool `json:"weak,omitempty"`
	// ReportOnly says why it is never swept, whatever else is known; empty when it may be.
	ReportOnly string `json:"report_only,omitempty"`
	// Dir, a directory or a file, is moved to below Room, on the same file system, instead of being released: it can be
	// undone.
	Dir  string `json:"dir,omitempty"`
	Room string `json:"room,omitempty"`
}

// Claim is what a resource itself shows of the container it belongs to. Empty fields show nothing.
type Claim struct {
	// Runtimes are the kinds ("containerd", "docker") of which one made it, by its form alone. Empty: any may have.
	Runtimes []string `json:"runtimes,omitempty"`
	// Sockets are those of the runtimes that made it, where it says so.
	Sockets   []string     `json:"sockets,omitempty"`
	ID        container.ID `json:"id,omitempty"`
	Namespace string       `json:"namespace,omitempty"` // containerd's
	// CNI is the id by which a runtime asked for an address: the sandbox id, or "NAMESPACE-ID" by ctr.
	CNI    string     `json:"cni,omitempty"`
	NetNS  host.NetNS `json:"netns,omitzero"`
	Cgroup string     `json:"cgroup,omitempty"` // its path in the hierarchies
	Upper  string     `json:"upper,omitempty"`  // the upper directory of an overlay mount
	Path   string     `json:"path,omitempty"`   // the mount point
}

// Owner is whoever can list and release some resources: a part, or a detector for what no part owns.
// Both methods are safe for concurrent use and may block for the host.
type Owner interface {
	// Owned gives every resource that is there now, also those of living containers.
	Owned(ctx context.Context) ([]Resource, error)
	// Release removes r from the host. It succeeds when r is already gone, and fails without a change when something
	// uses r or when another instance stands in its place. It may be called again after a crash in the middle.
	Release(ctx context.Context, r Resource) error
}

// Holder is an Owner whose resources with a Dir change hands under a lock.
type Holder interface {
	// Hold keeps everybody else from r until free is called. It does not wait, and fails when somebody has the lock or
	// when r is gone or another instance stands in its place.
	Hold(r Resource) (free func() error, err error)
}

// key names one resource for ever.
func (r *Resource) key() string { return string(r.Kind) + " " + r.Instance + " " + r.ID }

// Ref is a short name by which an operator speaks of the resource.
func (r *Resource) Ref() string {
	sum := sha256.Sum256([]byte(r.key()))
	return hex.EncodeToString(sum[:4])
}
