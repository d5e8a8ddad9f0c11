package detect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// cgroups finds the cgroups of containers, each in all hierarchies together.
type cgroups struct{ Host }

// deepest is how far below the root cgroups are looked for: kubepods.slice/…-besteffort.slice/…-pod.slice/scope is four.
const deepest = 6

// byForm are the last elements of paths by which runtimes show whose a cgroup is.
var byForm = []struct {
	runtime string
	form    *regexp.Regexp
}{
	{"docker", regexp.MustCompile(`^docker-([0-9a-f]{64})\.scope$`)},
	{"docker", regexp.MustCompile(`/docker/([0-9a-f]{64})$`)},
	{"containerd", regexp.MustCompile(`^cri-containerd-([0-9a-f]{64})\.scope$`)},
	{"cri", regexp.MustCompile(`^crio-([0-9a-f]{64})\.scope$`)},
	{"podman", regexp.MustCompile(`^libpod-([0-9a-f]{64})(\.scope)?$`)},
}

// claimOfCgroup reads whose a cgroup is from its path; weak when the path does not say.
func claimOfCgroup(p string) (cl reap.Claim, weak bool) {
	cl.Cgroup = p
	base := path.Base(p)
	for _, f := range byForm {
		for _, text := range []string{base, p} {
			if m := f.form.FindStringSubmatch(text); m != nil {
				cl.Runtimes, cl.ID = []string{f.runtime}, idOf(m[1])
				return cl, false
			}
		}
	}
	if isLongID(base) { // kubepods/…/pod…/ID: whichever runtime the kubelet has
		cl.ID = idOf(base)
		return cl, false
	}
	return cl, true
}

// systemd's own cgroups, and those that only hold others.
var units = regexp.MustCompile(`\.(slice|service|scope|mount|socket|swap|automount|device|timer)$`)

// Owned implements reap.Owner.
func (c cgroups) Owned(context.Context) ([]reap.Resource, error) {
	h, err := c.Cgroups()
	if err != nil {
		return nil, err
	}
	living, err := c.living()
	if err != nil {
		return nil, err
	}
	found := map[string]*reap.Resource{}
	for _, top := range tops(h) {
		if err := walk(top, "", func(p string, st fs.FileInfo) bool { return c.note(found, top, p, st, living) }); err != nil {
			return nil, err
		}
	}
	var out []reap.Resource
	for _, p := range slices.Sorted(maps.Keys(found)) {
		out = append(out, *found[p])
	}
	return out, nil
}

// note enters a cgroup and tells whether to look below it.
func (c cgroups) note(found map[string]*reap.Resource, top, p string, st fs.FileInfo, living map[string][]int) bool {
	cl, weak := claimOfCgroup(p)
	if weak && units.MatchString(p) {
		return true
	}
	if r := found[p]; r != nil {
		r.Evidence[0] += ", " + filepath.Join(top, p)
		if st.ModTime().After(r.Since) {
			r.Since = st.ModTime() // doubt: not older than the youngest
		}
		return weak
	}
	inst, _, ok := instance(filepath.Join(top, p))
	if !ok {
		return false
	}
	found[p] = &reap.Resource{
		Kind: reap.Cgroup, ID: p, Instance: inst, Claim: cl, Weak: weak, Since: st.ModTime(), PIDs: living[p],
		Evidence: []string{"empty in " + filepath.Join(top, p)},
	}
	if len(living[p]) > 0 {
		found[p].Evidence[0] = "in " + filepath.Join(top, p)
	}
	return weak
}

// tops are the mounts of all hierarchies, each once and always in the same order: the first gives a cgroup its
// instance, so it is removed last.
func tops(h host.Hierarchies) []string {
	dirs := slices.Collect(maps.Values(h.V1))
	if h.Unified != "" {
		dirs = append(dirs, h.Unified)
	}
	for i, d := range dirs {
		if real, err := filepath.EvalSymlinks(d); err == nil {
			dirs[i] = real // cpu and cpuacct may be one
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// walk calls f for each cgroup below top, and goes on below those for which f says so.
func walk(top, at string, f func(path string, st fs.FileInfo) bool) error {
	entries, err := os.ReadDir(filepath.Join(top, at))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("list cgroups: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		st, err := e.Info()
		if err != nil {
			continue
		}
		p := at + "/" + e.Name()
		if f(p, st) && strings.Count(p, "/") < deepest {
			if err := walk(top, p, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// living gives the processes in each cgroup or below it, in any hierarchy.
func (c cgroups) living() (map[string][]int, error) {
	all, err := c.Processes()
	if err != nil {
		return nil, err
	}
	out := map[string][]int{}
	for _, p := range all {
		m, err := c.CgroupOf(p.PID)
		if err != nil {
			continue // it has ended
		}
		in := map[string]bool{}
		for _, at := range append(slices.Collect(maps.Values(m.V1)), m.Unified) {
			for ; at != "" && at != "/" && at != "."; at = path.Dir(at) {
				in[at] = true
			}
		}
		for at := range in {
			out[at] = append(out[at], p.PID)
		}
	}
	return out, nil
}

// Release implements reap.Owner: it removes the cgroup from all hierarchies, the one that gave it its instance last. The
// kernel refuses what has a process.
func (c cgroups) Release(_ context.Context, r reap.Resource) error {
	h, err := c.Cgroups()
	if err != nil {
		return err
	}
	living, err := c.living()
	if err != nil {
		return err
	}
	if pids := living[r.ID]; len(pids) > 0 {
		return fmt.Errorf("processes %v are in cgroup %s", pids, r.ID)
	}
	all := tops(h)
	for _, top := range all {
		if inst, _, ok := instance(filepath.Join(top, r.ID)); ok {
			if inst != r.Instance {
				return fmt.Errorf("cgroup %s is another one by now", r.ID)
			}
			break
		}
	}
	for _, top := range slices.Backward(all) {
		if err := removeTree(filepath.Join(top, r.ID)); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it, deepest first.
func removeTree(dir string) error {
	for _, sub := range subdirsAll(dir) {
		if err := removeTree(filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

func subdirsAll(dir string) (out []string) {
	entries, _ := os.ReadDir(dir) // rmdir fails on what could not be read
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}
