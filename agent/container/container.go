// Package container is the one view of the containers on this host, whatever runtime started them.
//
// It owns the mapping container ↔ cgroup, pid, network namespace, host links, log, mounts and addresses, so that no
// part rebuilds any of it: metrics asks whose link this is, logship where the log lies, the reaper who is alive.
//
//	Docker API ─┐
//	containerd ─┼─ Source ─> Inventory ─> Snapshot (immutable, newest wins) ─> overlay, metrics, logship, reap
//	CRI ────────┘               ^
//	overlay ── Board ───────────┘   (who has which address on which host link)
//
// Nothing here is stored: after a crash the inventory asks the runtimes again.
package container

import (
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// ID is the runtime's own full id of a container. It is unique within one runtime.
type ID string

// Runtime names where a container was seen: "docker", "podman", "containerd", "cri", or "cni" for one that is known
// only because it has an address from us.
type Runtime string

// State is where a container is in its life.
type State string

// The states. Stopping lasts from the runtime's exit event until the runtime has removed the task: cgroup and log may
// still be read.
const (
	Created  State = "created"
	Running  State = "running"
	Paused   State = "paused"
	Stopping State = "stopping"
	Exited   State = "exited"
)

// Container is one container as its runtime and the kernel show it. Empty fields are unknown or do not apply.
type Container struct {
	ID        ID                `json:"id"`
	Name      string            `json:"name"` // what people call it: Docker's name, CRI's container name, `fairlead.name`, else the id
	Runtime   Runtime           `json:"runtime"`
	Namespace string            `json:"namespace,omitempty"` // containerd namespace ("default", "moby", "k8s.io"); empty elsewhere
	Image     string            `json:"image,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	State     State             `json:"state"`
	ExitCode  int               `json:"exit_code,omitempty"`
	Health    string            `json:"health,omitempty"`     // what its health check says: "starting", "healthy", "unhealthy"; empty without one
	Restarts  int               `json:"restarts,omitempty"`   // how often the runtime itself has started it again
	OOMKilled bool              `json:"oom_killed,omitempty"` // as far as the runtime says; cgroup counters are metrics' business
	Created   time.Time         `json:"created,omitzero"`
	Started   time.Time         `json:"started,omitzero"`
	Finished  time.Time         `json:"finished,omitzero"`
	PID       int               `json:"pid,omitempty"`     // first process, as seen from the agent's host.proc; 0 when none runs
	Pod       Pod               `json:"pod,omitzero"`      // Kubernetes names; zero elsewhere
	Sandbox   bool              `json:"sandbox,omitempty"` // a pod's pause container: its network, not its work

	Log    Log     `json:"log,omitzero"`
	Rootfs Rootfs  `json:"rootfs,omitzero"`
	Mounts []Mount `json:"mounts,omitempty"`
	Limits Limits  `json:"limits,omitzero"`

	// What the kernel says of PID; filled by the Inventory for every runtime alike. An exited container keeps the
	// cgroup, and below the attachments, that it had.
	Cgroup host.Membership `json:"cgroup,omitzero"`
	NetNS  host.NetNS      `json:"netns,omitzero"`
	Links  []Link          `json:"links,omitempty"` // host ends of links whose other end is in NetNS

	// What the overlay published on the Board for this container's network namespace.
	Attachments []Attachment `json:"attachments,omitempty"`
}

// Pod is the Kubernetes side of a container.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
	Container string `json:"container,omitempty"`
}

// Limits are the limits as the runtime's own record has them; zero is none. The cgroup is the truth, these are for
// people and for checks.
type Limits struct {
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
	CPUs        float64 `json:"cpus,omitempty"`
	Pids        int64   `json:"pids,omitempty"`
}

// LogFormat is how a log's lines are framed.
type LogFormat string

// The formats.
const (
	DockerJSON LogFormat = "docker-json" // one JSON object a line; 16 KiB pieces without a final newline are joined
	CRI        LogFormat = "cri"         // time stream P|F text
	Plain      LogFormat = "plain"       // text; the stream is not known
)

// Log is where a runtime writes a container's stdout and stderr. Path is empty when it writes to no file.
type Log struct {
	Path   string    `json:"path,omitempty"`
	Format LogFormat `json:"format,omitempty"`
	Driver string    `json:"driver,omitempty"` // the runtime's name for it: "json-file", "local", "journald", "file", "binary", ...
	// Truncates tells that the runtime keeps one file and empties it when it is full: what was not read by then is gone.
	Truncates bool `json:"truncates,omitempty"`
	// MaxBytes is what the runtime fills a file with, at least, before it begins another; 0 when that is not known.
	MaxBytes int64 `json:"max_bytes,omitempty"`
}

// Rootfs is a container's root as the host sees it.
type Rootfs struct {
	Upper string   `json:"upper,omitempty"` // overlay's upper directory: what the container wrote
	Lower []string `json:"lower,omitempty"`
	Path  string   `json:"path,omitempty"` // the merged root when the runtime names one
}

// Mount is one directory or file of the host inside the container.
type Mount struct {
	Type        string `json:"type,omitempty"`   // "bind", "volume", "tmpfs"
	Name        string `json:"name,omitempty"`   // a named volume's name
	Source      string `json:"source,omitempty"` // on the host
	Destination string `json:"destination"`      // in the container
	ReadOnly    bool   `json:"read_only,omitempty"`
}

// Link is a network device of the host.
type Link struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
}

// Short gives the first twelve characters of the id, as people quote them.
func (id ID) Short() string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}

// Alive tells whether the container has, or may still have, a process.
func (c *Container) Alive() bool {
	return c.State == Running || c.State == Paused || c.State == Stopping
}

// Label gives the label key, or fallback when it is absent or empty.
func (c *Container) Label(key, fallback string) string {
	if v := strings.TrimSpace(c.Labels[key]); v != "" {
		return v
	}
	return fallback
}
