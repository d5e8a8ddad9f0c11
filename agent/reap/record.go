package reap

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// Record is what earlier observations saw. It is a promise: a restart of the agent never shortens a grace.
// It is never modified; Plan gives the next one.
type Record struct {
	Boot string `json:"boot"` // what the kernel said of an earlier boot is void
	// Runtimes are those that have ever answered here, by socket: one of them that is down now may own what no other
	// lists.
	Runtimes map[string]KnownRuntime `json:"runtimes"`
	// Namespaces are containerd's that were seen, by which the ids of its CNI requests are understood.
	Namespaces []string         `json:"namespaces"`
	Entries    map[string]Entry `json:"entries"` // by resource
}

// KnownRuntime is a runtime that has answered.
type KnownRuntime struct {
	Name  container.Runtime `json:"name"`
	Asked time.Time         `json:"asked"` // its last complete list, zero when it has given none
}

// Entry is what was seen of one resource.
type Entry struct {
	// First is when it was first seen without an owner, zero while it has one; Lists are the complete lists by which
	// that was known, by socket.
	First time.Time            `json:"first,omitzero"`
	Lists map[string]time.Time `json:"lists,omitempty"`
	// Witness are the containers that were seen to have it.
	Witness []Witness `json:"witness,omitempty"`
}

// Witness is a container that was seen to have a resource.
type Witness struct {
	Runtime   container.Runtime `json:"runtime"`
	Socket    string            `json:"socket,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	ID        container.ID      `json:"id"`
	Name      string            `json:"name,omitempty"`
	Protected bool              `json:"protected,omitempty"`
}

func (w Witness) String() string {
	out := w.ID.Short()
	if w.Namespace != "" {
		out = w.Namespace + "/" + string(w.ID)
	}
	if w.Name != "" && w.Name != string(w.ID) {
		out += " (" + w.Name + ")"
	}
	return string(w.Runtime) + " " + out
}

// next begins the record that follows r: everything about runtimes is carried on, entries are put in by Plan.
func (r Record) next(boot string, seen *container.Snapshot) Record {
	n := Record{Boot: boot, Runtimes: maps.Clone(r.Runtimes), Namespaces: slices.Clone(r.Namespaces), Entries: map[string]Entry{}}
	if n.Runtimes == nil {
		n.Runtimes = map[string]KnownRuntime{}
	}
	for _, rt := range seen.Runtimes {
		if rt.Answered { // with a list or not yet: it may own what no other lists
			asked := rt.Asked
			if asked.IsZero() {
				asked = n.Runtimes[rt.Socket].Asked
			}
			n.Runtimes[rt.Socket] = KnownRuntime{rt.Name, asked}
		}
	}
	for i := range seen.Containers {
		if ns := seen.Containers[i].Namespace; ns != "" && !slices.Contains(n.Namespaces, ns) {
			n.Namespaces = append(n.Namespaces, ns)
		}
	}
	slices.Sort(n.Namespaces)
	return n
}

// entry gives what r says of a resource, as a copy.
func (r Record) entry(res *Resource, boot string) Entry {
	if r.Boot != boot {
		return Entry{}
	}
	e := r.Entries[res.key()]
	e.Lists, e.Witness = maps.Clone(e.Lists), slices.Clone(e.Witness)
	return e
}

// unanswered gives the runtimes that have answered here at some time and are not in seen, or do not answer now.
func (r Record) unanswered(seen *container.Snapshot) []container.RuntimeState {
	var out []container.RuntimeState
	in := map[string]bool{}
	for _, rt := range seen.Runtimes {
		in[rt.Socket] = true
		if !rt.Answered {
			out = append(out, rt)
		}
	}
	for _, socket := range slices.Sorted(maps.Keys(r.Runtimes)) {
		if !in[socket] {
			k := r.Runtimes[socket]
			out = append(out, container.RuntimeState{Name: k.Name, Socket: socket, Asked: k.Asked, Error: "not found on its socket"})
		}
	}
	return out
}

// kind is a runtime's name without the socket that tells two of a kind apart.
func kind(r container.Runtime) string {
	k, _, _ := strings.Cut(string(r), "@")
	return k
}
