package cgroup

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// Services finds the cgroups of systemd's services whose unit name matches, below system.slice of each hierarchy, sorted by
// path. It reads a directory for each slice and hierarchy.
func (t *Tree) Services(match func(unit string) bool) []host.Membership {
	const slice = "/system.slice"
	found := map[string]host.Membership{}
	for controller, mount := range t.mounts.V1 {
		for at := range servicesIn(mount, slice, match) {
			if found[at].V1 == nil {
				found[at] = host.Membership{V1: map[string]string{}}
			}
			found[at].V1[controller] = at
		}
	}
	if t.mounts.Unified != "" {
		for at := range servicesIn(t.mounts.Unified, slice, match) {
			found[at] = host.Membership{V1: found[at].V1, Unified: at}
		}
	}
	var out []host.Membership
	for _, at := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[at])
	}
	return out
}

// servicesIn looks for services in the slice at and in the slices in it: template units have one of their own.
func servicesIn(mount, at string, match func(string) bool) map[string]bool {
	out := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(mount, at))
	if err != nil {
		return out // this hierarchy has no such slice
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case !e.IsDir():
		case strings.HasSuffix(name, ".service") && match(name):
			out[path.Join(at, name)] = true
		case strings.HasSuffix(name, ".slice"):
			maps.Copy(out, servicesIn(mount, path.Join(at, name), match))
		}
	}
	return out
}
