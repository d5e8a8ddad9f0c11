package reap

import (
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

// protectLabel keeps everything that a container had, for as long as it is remembered.
const protectLabel = "fairlead.protect"

// roots finds the listed container that a claim speaks of. Containers that are known only by an attachment of ours are
// none: they would keep themselves alive.
type roots struct {
	sockets  map[container.Runtime]string
	byID     map[container.ID][]*container.Container
	byCNI    map[string]*container.Container
	byNetNS  map[host.NetNS][]*container.Container
	byCgroup map[string]*container.Container
	byUpper  map[string]*container.Container
	gone     []container.Tombstone
}

func newRoots(seen *container.Snapshot) *roots {
	x := &roots{
		sockets: map[container.Runtime]string{}, byID: map[container.ID][]*container.Container{},
		byCNI: map[string]*container.Container{}, byNetNS: map[host.NetNS][]*container.Container{},
		byCgroup: map[string]*container.Container{}, byUpper: map[string]*container.Container{},
	}
	for _, rt := range seen.Runtimes {
		x.sockets[rt.Name] = rt.Socket
	}
	for i := range seen.Containers {
		if c := &seen.Containers[i]; c.Runtime != "cni" {
			x.add(c)
		}
	}
	for _, t := range seen.Gone {
		if t.Runtime != "cni" {
			x.gone = append(x.gone, t)
		}
	}
	return x
}

func (x *roots) add(c *container.Container) {
	x.byID[c.ID] = append(x.byID[c.ID], c)
	x.byCNI[string(c.ID)] = c
	x.byCNI[c.Namespace+"-"+string(c.ID)] = c
	for _, a := range c.Attachments {
		if c.Alive() {
			x.byCNI[a.Owner] = c // whatever id it was given: it lives in that namespace
		}
	}
	if c.Alive() && !c.NetNS.IsZero() {
		x.byNetNS[c.NetNS] = append(x.byNetNS[c.NetNS], c)
	}
	for path := range cgroupsOf(c) {
		x.byCgroup[path] = c
	}
	for _, dir := range []string{c.Rootfs.Upper, c.Rootfs.Path} {
		if dir != "" {
			x.byUpper[dir] = c
		}
	}
}

func cgroupsOf(c *container.Container) map[string]bool {
	paths := map[string]bool{c.Cgroup.Unified: true}
	for _, p := range c.Cgroup.V1 {
		paths[p] = true
	}
	delete(paths, "")
	delete(paths, "/")
	return paths
}

// find gives a listed container that the claim may speak of: where several could be meant, any of them keeps.
func (x *roots) find(cl Claim) *container.Container {
	if cl.ID != "" {
		for _, c := range x.byID[cl.ID] {
			if cl.Namespace == "" || c.Namespace == "" || c.Namespace == cl.Namespace {
				return c
			}
		}
	}
	if c := x.byCNI[cl.CNI]; c != nil && cl.CNI != "" {
		return c
	}
	if in := x.byNetNS[cl.NetNS]; len(in) > 0 && !cl.NetNS.IsZero() {
		return in[0]
	}
	if c := x.byCgroup[cl.Cgroup]; c != nil {
		return c
	}
	if c := x.byUpper[cl.Upper]; c != nil && cl.Upper != "" {
		return c
	}
	if c := x.byUpper[cl.Path]; c != nil && cl.Path != "" {
		return c
	}
	return nil
}

// listed tells whether a runtime lists the witness, or another container that may be the same.
func (x *roots) listed(w Witness) *container.Container {
	return x.find(Claim{ID: w.ID, Namespace: w.Namespace})
}

// buried gives a removed container that surely had the resource. A network namespace proves nothing here: the kernel
// gives its number to the next one at once.
func (x *roots) buried(r *Resource) *container.Container {
	for i := range x.gone {
		t := &x.gone[i]
		c := &t.Container
		cl := r.Claim
		switch {
		case cl.ID != "" && c.ID == cl.ID && (cl.Namespace == "" || c.Namespace == "" || c.Namespace == cl.Namespace),
			cl.CNI != "" && (cl.CNI == string(c.ID) || c.Namespace != "" && cl.CNI == c.Namespace+"-"+string(c.ID)),
			cl.Upper != "" && cl.Upper == c.Rootfs.Upper,
			cl.Path != "" && cl.Path == c.Rootfs.Path,
			cgroupsOf(c)[cl.Cgroup] && madeFor(c, r):
			return c
		}
	}
	return nil
}

// madeFor tells whether a cgroup under the container's path is its own: it was there before the container's process
// was. Somebody else's of that name came after the container's had gone.
func madeFor(c *container.Container, r *Resource) bool {
	return !r.Since.IsZero() && !c.Started.IsZero() && !r.Since.After(c.Started)
}

func (x *roots) witness(c *container.Container) Witness {
	w := Witness{Runtime: c.Runtime, Socket: x.sockets[c.Runtime], Namespace: c.Namespace, ID: c.ID, Protected: protected(c)}
	if c.Name != string(c.ID) {
		w.Name = c.Name
	}
	return w
}

func protected(c *container.Container) bool {
	switch strings.ToLower(c.Label(protectLabel, "")) {
	case "", "false", "no", "0":
		return false
	}
	return true
}

// remember adds w to the witnesses, or replaces what was known of the same container.
func remember(list []Witness, w Witness) []Witness {
	i := slices.IndexFunc(list, func(o Witness) bool { return o.ID == w.ID && o.Namespace == w.Namespace })
	if i < 0 {
		return append(list, w)
	}
	w.Protected = w.Protected || list[i].Protected
	list[i] = w
	return list
}
