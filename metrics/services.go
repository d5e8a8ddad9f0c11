package metrics

import (
	"path"
	"slices"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
)

// services finds the cgroups of the systemd services that are asked for, as they are now: systemd tells nobody here when
// one starts, so each scrape looks. m is locked.
func (m *Metrics) services() []host.Membership {
	if len(m.cfg.Services) == 0 || m.tree == nil {
		return nil
	}
	return m.tree.Services(func(unit string) bool {
		return slices.ContainsFunc(m.cfg.Services, func(pattern string) bool { ok, _ := path.Match(pattern, unit); return ok })
	})
}

// serviceTargets are measured as pods' own cgroups are: nobody's container, so without health, restarts or a last sample.
// A service that is one of the containers (Podman with --cgroups=split, nspawn) is measured as that alone.
func serviceTargets(found []host.Membership, containers []target) []target {
	if len(found) == 0 {
		return nil
	}
	taken := map[string]bool{}
	for _, t := range containers {
		taken[t.cgroup.Path()] = true
	}
	var out []target
	for _, at := range found {
		if taken[at.Path()] {
			continue
		}
		name := path.Base(at.Path())
		c := &container.Container{Runtime: "systemd", ID: container.ID(name), Name: name, State: container.Running, Cgroup: at}
		out = append(out, target{aggregate: true, c: c, cgroup: at, labels: aggregateLabels(at.Path(), container.Pod{})})
	}
	return out
}

func sameServices(a, b []host.Membership) bool {
	return slices.EqualFunc(a, b, func(x, y host.Membership) bool { return x.Path() == y.Path() && len(x.V1) == len(y.V1) })
}
