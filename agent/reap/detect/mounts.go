package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/reap"
)

// mounts finds container roots, and what runtimes mount for single containers beside them.
type mounts struct{ Host }

// Owned implements reap.Owner.
func (m mounts) Owned(context.Context) ([]reap.Resource, error) {
	table, err := m.mountTable()
	if err != nil {
		return nil, err
	}
	var out []reap.Resource
	for _, p := range table {
		r, ok := m.resource(p)
		if !ok {
			continue
		}
		if st, err := os.Lstat(filepath.Dir(p.point)); err == nil {
			r.Since = st.ModTime()
		}
		out = append(out, r)
	}
	return out, nil
}

// resource tells whether a mount is one that runtimes make, and for whom.
func (m mounts) resource(p mountpoint) (reap.Resource, bool) {
	r := reap.Resource{Kind: reap.Mount, ID: p.point, Instance: p.id + " " + p.root, Claim: reap.Claim{Path: p.point}}
	for _, dir := range m.Containerd {
		rest, below := strings.CutPrefix(p.point, filepath.Join(dir, tasksDir)+"/")
		if f := strings.Split(rest, "/"); below && len(f) == 3 && f[2] == "rootfs" {
			r.Claim = claimOf("containerd", f[0], f[1])
			r.Evidence = []string{fmt.Sprintf("%s mounted as the root of containerd's container %s/%s", p.fstype, f[0], f[1])}
			return r, true
		}
		rest, below = strings.CutPrefix(p.point, filepath.Join(dir, "io.containerd.grpc.v1.cri/sandboxes")+"/")
		if f := strings.Split(rest, "/"); below && len(f) == 2 && f[1] == "shm" {
			r.Claim = claimOf("containerd", "k8s.io", f[0])
			r.Evidence = []string{"shared memory of the pod " + f[0]}
			return r, true
		}
	}
	if p.fstype == "overlay" {
		// Docker and Podman name layers, not containers: only a container that was seen with it tells.
		r.Weak, r.Claim.Upper = true, p.option("upperdir")
		r.Evidence = []string{"overlay whose upper directory is " + r.Claim.Upper}
		return r, r.Claim.Upper != ""
	}
	return r, false
}

// Release implements reap.Owner. Nothing is detached lazily: what is in use stays.
func (m mounts) Release(_ context.Context, r reap.Resource) error {
	table, err := m.mountTable()
	if err != nil {
		return err
	}
	at := func(p mountpoint) bool { return p.point == r.ID }
	last := len(table) - 1 // the topmost of several on one point stands last
	for ; last >= 0 && !at(table[last]); last-- {
	}
	if last < 0 {
		return nil
	}
	if table[last].id+" "+table[last].root != r.Instance {
		return fmt.Errorf("something else is mounted on %s", r.ID)
	}
	if slices.ContainsFunc(table, func(p mountpoint) bool { return strings.HasPrefix(p.point, r.ID+"/") }) {
		return fmt.Errorf("something is mounted below %s", r.ID)
	}
	err = unix.Unmount(r.ID, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", r.ID, err)
	}
	return nil
}
