package metrics

import (
	"cmp"
	"path"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// target is one container to measure, as decided from a snapshot, or a cgroup that holds several.
type target struct {
	// aggregate tells a cgroup that holds several containers: a pod's, or the root.
	aggregate bool
	c         *container.Container
	cgroup    host.Membership // of the container as a whole
	labels    []byte          // rendered: id, image, name and Kubernetes' names
	// network tells that this container answers for its network namespace: a pod's counters are shown once, under
	// its sandbox, as the kubelet shows them.
	network bool
}

// key tells one life of one container from another.
type key struct {
	runtime container.Runtime
	id      container.ID
	path    string
	unified string
	pid     int
	started time.Time
}

// unpid is the key of the same life once its first process is no more.
func (k key) unpid() key {
	k.pid = 0
	return k
}

func (t target) key() key {
	return key{t.c.Runtime, t.c.ID, t.cgroup.Path(), t.cgroup.Unified, t.c.PID, t.c.Started}
}

// aggregates gives the root cgroup, and that of each pod in which one of ts is.
func aggregates(ts []target) []target {
	root := &container.Container{State: container.Running}
	out := []target{{aggregate: true, c: root, labels: aggregateLabels("/", container.Pod{})}}
	seen := map[string]bool{}
	for _, t := range ts {
		pod := t.c.Pod
		m, ok := parent(t.cgroup, pod.UID)
		if !ok || seen[m.Path()] {
			continue
		}
		seen[m.Path()] = true
		c := &container.Container{Runtime: t.c.Runtime, State: container.Running, Cgroup: m}
		out = append(out, target{aggregate: true, c: c, cgroup: m, labels: aggregateLabels(m.Path(), pod)})
	}
	return out
}

// parent gives the cgroup above m when that is the pod's own: named pod7e1f-..., or with systemd
// kubepods-burstable-pod7e1f_....slice.
func parent(m host.Membership, uid string) (host.Membership, bool) {
	name := path.Base(path.Dir(m.Path()))
	if uid == "" || !strings.Contains(name, "pod"+uid) && !strings.Contains(name, "pod"+strings.ReplaceAll(uid, "-", "_")) {
		return host.Membership{}, false
	}
	up := host.Membership{V1: make(map[string]string, len(m.V1))}
	for controller, at := range m.V1 {
		up.V1[controller] = path.Dir(at)
	}
	if m.Unified != "" {
		up.Unified = path.Dir(m.Unified)
	}
	return up, true
}

// aggregateLabels are those that the kubelet gives: empty names, so that sum by (container) of containers leaves it out.
func aggregateLabels(id string, pod container.Pod) []byte {
	var b []byte
	if pod.Name != "" {
		b = expo.AppendLabel(b, "container", "")
		b = expo.AppendLabel(b, "namespace", pod.Namespace)
		b = expo.AppendLabel(b, "pod", pod.Name)
	}
	return expo.AppendLabel(b, "id", id)
}

// wanted tells whether the configuration asks for c.
func (c Config) wanted(of *container.Container) bool {
	has := func(key, value string) bool {
		v, ok := of.Labels[key]
		return ok && (value == "" || v == value)
	}
	for key, value := range c.Only {
		if !has(key, value) {
			return false
		}
	}
	for key, value := range c.Skip {
		if has(key, value) {
			return false
		}
	}
	return true
}

// targets decides which containers of s are measured: those alive in a cgroup of their own. A cgroup is measured once,
// whoever else claims it: two series of one cgroup would be summed by every dashboard.
func targets(s *container.Snapshot) []target {
	if s == nil {
		return nil
	}
	var out []target
	seen := map[string]bool{}
	for i := range s.Containers {
		c := &s.Containers[i]
		m := cgroup.Own(c.Cgroup, string(c.ID))
		path := m.Path()
		if !c.Alive() || path == "" || path == "/" || seen[path] {
			continue
		}
		seen[path] = true
		out = append(out, target{c: c, cgroup: m, labels: labels(c, path)})
	}
	speakers(out)
	return out
}

// speakers marks one target for each network namespace: the sandbox, else the first.
func speakers(ts []target) {
	speaker := map[host.NetNS]int{}
	for i, t := range ts {
		ns := t.c.NetNS
		if j, taken := speaker[ns]; !ns.IsZero() && (!taken || (t.c.Sandbox && !ts[j].c.Sandbox)) {
			speaker[ns] = i
		}
	}
	for _, i := range speaker {
		ts[i].network = true
	}
}

// labels renders the labels that cAdvisor and, for pods, the kubelet put on each series of a container.
func labels(c *container.Container, path string) []byte {
	var b []byte
	if pod := c.Pod; pod.Name != "" {
		b = expo.AppendLabel(b, "container", pod.Container)
		b = expo.AppendLabel(b, "namespace", pod.Namespace)
		b = expo.AppendLabel(b, "pod", pod.Name)
		b = expo.AppendLabel(b, "id", path)
		b = expo.AppendLabel(b, "image", c.Image)
		return expo.AppendLabel(b, "name", string(c.ID)) // as cAdvisor does for containerd's containers
	}
	b = expo.AppendLabel(b, "id", path)
	b = expo.AppendLabel(b, "image", c.Image)
	return expo.AppendLabel(b, "name", cmp.Or(c.Name, string(c.ID)))
}
