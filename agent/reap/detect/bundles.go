package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/agent/reap"
)

// bundles finds containerd's directories about single containers: DIR/io.containerd.runtime.v2.task/NAMESPACE/ID, in its
// state (bundle) and in its root (work).
type bundles struct{ Host }

const tasksDir = "io.containerd.runtime.v2.task"

var errMovedOnly = errors.New("state directories are moved into quarantine, never released")

// Owned implements reap.Owner.
func (b bundles) Owned(context.Context) ([]reap.Resource, error) {
	var out []reap.Resource
	for _, dir := range b.Containerd {
		top := filepath.Join(dir, tasksDir)
		for _, ns := range subdirs(top) {
			for _, id := range subdirs(filepath.Join(top, ns)) {
				path := filepath.Join(top, ns, id)
				if r, ok := stateDir(path, filepath.Join(dir, quarantineName)); ok {
					r.Claim = claimOf("containerd", ns, id)
					r.Evidence = append(r.Evidence, fmt.Sprintf("containerd's directory of container %s/%s", ns, id))
					out = append(out, r)
				}
			}
		}
	}
	return out, nil
}

// Release implements reap.Owner.
func (bundles) Release(_ context.Context, r reap.Resource) error { return releaseDir(r) }

// stateDir is a runtime's directory about one container.
func stateDir(path, room string) (reap.Resource, bool) {
	inst, st, ok := instance(path)
	if !ok {
		return reap.Resource{}, false
	}
	return reap.Resource{
		Kind: reap.State, ID: path, Instance: inst, Since: st.ModTime(), Size: sizeOf(path), Dir: path, Room: room,
	}, true
}

// sizeOf adds up the plain files directly in dir: what a runtime keeps there has no depth, what is mounted there is not
// its own.
func sizeOf(dir string) (n int64) {
	entries, _ := os.ReadDir(dir) // for people; what cannot be read counts nothing
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
	}
	return n
}

// releaseDir is never needed: the Reaper moves what has a Dir.
func releaseDir(r reap.Resource) error {
	if inst, _, ok := instance(r.Dir); !ok || inst != r.Instance {
		return nil
	}
	return errMovedOnly
}
