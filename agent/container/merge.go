package container

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// tombstoneAge is how long a removed container is remembered.
const tombstoneAge = 10 * time.Minute

// rank orders runtimes from the one that knows most of a container's meaning to the one that knows least.
var rank = []string{"cri", "docker", "podman", "containerd"}

// kind is the runtime's name without the socket that tells two of a kind apart.
func (r Runtime) kind() string {
	kind, _, _ := strings.Cut(string(r), "@")
	return kind
}

// above tells whether a container that both a and b may list is b's in truth: containerd keeps Docker's containers in
// its namespace moby and Kubernetes' in k8s.io, and Docker may run Kubernetes' containers.
func above(a Runtime, c *Container) []string {
	switch {
	case a.kind() == "containerd" && c.Namespace == "moby":
		return []string{"docker"}
	case a.kind() == "containerd" && c.Namespace == "k8s.io":
		return []string{"cri"}
	case a.kind() == "docker":
		return []string{"cri"}
	}
	return nil
}

// merge gives each container once. Where two runtimes know the same one, the more specific wins by what it said last,
// answered or not: while Docker is silent its containers stay as Docker told them. What only the other knows, such as
// the root file system, is filled in.
func merge(views map[Runtime]*view) []entry {
	var out []entry
	at := map[string]map[ID]int{} // kind → id → index in out
	for _, v := range byRank(views) {
		k := v.state.Name.kind()
		if at[k] == nil {
			at[k] = map[ID]int{}
		}
		for _, e := range v.sorted() {
			if i, ok := find(at, above(v.state.Name, &e.Container), e.ID); ok {
				at[k][e.ID] = i
				fill(&out[i].Container, &e.Container)
				out[i].told += e.told // what the kernel says depends on both
				continue
			}
			at[k][e.ID] = len(out)
			out = append(out, e)
		}
	}
	return out
}

func find(at map[string]map[ID]int, kinds []string, id ID) (int, bool) {
	for _, k := range kinds {
		if i, ok := at[k][id]; ok {
			return i, true
		}
	}
	return 0, false
}

func byRank(views map[Runtime]*view) []*view {
	var out []*view
	for _, v := range views {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *view) int {
		return cmp.Or(
			cmp.Compare(slices.Index(rank, a.state.Name.kind()), slices.Index(rank, b.state.Name.kind())),
			cmp.Compare(a.state.Name, b.state.Name))
	})
	return out
}

// fill takes into c what only the lower runtime knows.
func fill(c, lower *Container) {
	if c.Rootfs.Upper == "" && c.Rootfs.Path == "" {
		c.Rootfs = lower.Rootfs
	}
	if c.Limits == (Limits{}) {
		c.Limits = lower.Limits
	}
	if c.Log == (Log{}) {
		c.Log = lower.Log
	}
	if c.PID == 0 && c.Alive() {
		c.PID = lower.PID
	}
	// The task has ended and is not yet removed: its cgroup may still be read.
	if c.State == Running && lower.State == Stopping {
		c.State = Stopping
	}
}

// bury adds the newly gone to the tombstones, forgets the old ones, and passes over those that a more specific runtime
// has, or has had, under its own name. Tombs, which are published, are not copied as long as none is passed over: a host
// where thousands of containers end in ten minutes publishes often. What is appended, earlier snapshots do not see.
func bury(tombs, gone []Tombstone, views map[Runtime]*view, now time.Time) []Tombstone {
	for len(tombs) > 0 && now.Sub(tombs[0].Removed) >= tombstoneAge {
		tombs = tombs[1:]
	}
	all := append(tombs, gone...)
	known := knownAs(all, views)
	hidden := func(t Tombstone) bool {
		return slices.ContainsFunc(above(t.Runtime, &t.Container), func(k string) bool { return known[k][t.ID] })
	}
	if !slices.ContainsFunc(all, hidden) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), hidden)
}

// knownAs gives the ids that runtimes of a kind have, or have had. What is known only by its attachment hides nothing.
func knownAs(tombs []Tombstone, views map[Runtime]*view) map[string]map[ID]bool {
	known := map[string]map[ID]bool{}
	note := func(c *Container) {
		k := c.Runtime.kind()
		if k == "cni" {
			return
		}
		if known[k] == nil {
			known[k] = map[ID]bool{}
		}
		known[k][c.ID] = true
	}
	for _, v := range views {
		for _, e := range v.containers {
			note(&e.Container)
		}
	}
	for i := range tombs {
		note(&tombs[i].Container)
	}
	return known
}

// join puts the overlay's attachments on the containers in their network namespaces. An attachment whose namespace
// belongs to no known container is a container of its own: a runtime we do not know, or one that has not told us yet.
func join(have []Container, attachments []Attachment) []Container {
	at := map[host.NetNS][]int{}
	for i := range have {
		if ns := have[i].NetNS; !ns.IsZero() {
			at[ns] = append(at[ns], i)
		}
	}
	for _, a := range attachments {
		if a.NetNS.IsZero() {
			continue
		}
		if len(at[a.NetNS]) == 0 {
			at[a.NetNS] = []int{len(have)}
			have = append(have, Container{
				ID: ID(a.Owner), Name: a.Owner, Runtime: "cni", State: Running, NetNS: a.NetNS, Links: []Link{a.Link},
			})
		}
		for _, i := range at[a.NetNS] {
			c := &have[i]
			c.Attachments = append(c.Attachments, a)
			if a.Link.Index != 0 && !slices.Contains(c.Links, a.Link) {
				c.Links = append(c.Links, a.Link)
			}
		}
	}
	return have
}

// unplugged gives the containers that were known only by their attachment and are known no more, in any way.
func unplugged(before, after []Container, now time.Time) []Tombstone {
	type plug struct {
		id ID
		ns host.NetNS
	}
	still := map[plug]bool{}
	taken := map[host.NetNS]bool{}
	for _, c := range after {
		if c.Runtime == "cni" {
			still[plug{c.ID, c.NetNS}] = true
		} else {
			taken[c.NetNS] = true
		}
	}
	var gone []Tombstone
	for _, c := range before {
		if c.Runtime == "cni" && !still[plug{c.ID, c.NetNS}] && !taken[c.NetNS] {
			gone = append(gone, Tombstone{c, now})
		}
	}
	return gone
}
