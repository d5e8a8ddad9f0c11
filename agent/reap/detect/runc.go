package detect

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// runc finds the state of runc and its like, which names the first process of each container and when it was started:
// by it a container is known that lives on after its shim has died.
type runc struct{ Host }

// runcState is what concerns us of state.json (runc, libcontainer's BaseState).
type runcState struct {
	PID   int    `json:"init_process_pid"`
	Start uint64 `json:"init_process_start"` // clock ticks after boot
}

// Owned implements reap.Owner.
func (c runc) Owned(context.Context) ([]reap.Resource, error) {
	all, err := c.Processes()
	if err != nil {
		return nil, err
	}
	minders := findShims(c.Root, all)
	var out []reap.Resource
	for _, root := range c.Runc {
		spaces := []string{""}
		if root.Namespace {
			spaces = subdirs(root.Dir)
		}
		for _, ns := range spaces {
			for _, id := range subdirs(filepath.Join(root.Dir, ns)) {
				out = append(out, c.look(root, ns, id, all, minders)...)
			}
		}
	}
	return out, nil
}

// look gives the directory of one container, and its first process when that has lost its shim.
func (c runc) look(root RuncRoot, ns, id string, all []host.Process, minders []shim) []reap.Resource {
	dir, ok := stateDir(filepath.Join(root.Dir, ns, id), filepath.Join(root.Dir, quarantineName))
	if !ok {
		return nil
	}
	name := strings.TrimPrefix(ns+"/"+id, "/")
	dir.Evidence = append(dir.Evidence, "runc's state of container "+name)
	if root.Runtime != "" {
		dir.Claim = claimOf(root.Runtime, ns, id)
	} else {
		dir.Claim.ID = idOf(id)
	}
	out := []reap.Resource{dir}
	text, err := os.ReadFile(filepath.Join(dir.ID, "state.json"))
	var s runcState
	if err != nil || json.Unmarshal(text, &s) != nil || s.PID == 0 {
		// Just being made, or of another program: no first process is known.
		return out
	}
	i := slices.IndexFunc(all, func(p host.Process) bool { return p.PID == s.PID && p.Start == s.Start })
	if i < 0 {
		out[0].Evidence = append(out[0].Evidence, fmt.Sprintf("its first process %d has ended", s.PID))
		return out
	}
	out[0].PIDs = []int{s.PID}
	minded := slices.ContainsFunc(minders, func(m shim) bool { return m.PID == all[i].Parent || m.namespace == ns && m.id == id })
	if root.Runtime == "" || minded {
		return out // used by hand, runc leaves a container to whoever called it
	}
	return append(out, reap.Resource{
		Kind: reap.Process, ID: name, Instance: fmt.Sprintf("%d:%d", s.PID, s.Start), Where: fmt.Sprintf("process %d", s.PID),
		Claim: dir.Claim, PIDs: []int{s.PID}, Adrift: true,
		Evidence: []string{fmt.Sprintf("process %d is the first of container %s (%s), its parent is %d, and no shim minds it", s.PID, name, dir.ID, all[i].Parent)},
	})
}

// Release implements reap.Owner. Processes are never swept.
func (runc) Release(_ context.Context, r reap.Resource) error {
	if r.Kind == reap.Process {
		return fmt.Errorf("process %s is alive", r.ID)
	}
	return releaseDir(r)
}
