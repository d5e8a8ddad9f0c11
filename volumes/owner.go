package volumes

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// keptByOperators says why the reaper never removes a snapshot by itself.
const keptByOperators = "a snapshot stays until `fairlead volume rm`: it may be the only copy"

// Owned implements reap.Owner: the snapshots on this host. They belong to no container, and are only reported.
func (v *Volumes) Owned(context.Context) ([]reap.Resource, error) {
	list, err := v.Snapshots()
	var out []reap.Resource
	for _, s := range list {
		out = append(out, reap.Resource{
			Kind: reap.Other, ID: s.Path, Instance: string(s.ID), Since: s.Taken, ReportOnly: keptByOperators, Weak: true,
			Evidence: []string{fmt.Sprintf("%s snapshot of volume %s", s.Driver, s.Volume)},
		})
	}
	return out, err
}

// Release implements reap.Owner: it removes a snapshot, unless a backup reads it.
func (v *Volumes) Release(ctx context.Context, r reap.Resource) error {
	if r.Kind != reap.Other || r.ReportOnly != keptByOperators {
		return fmt.Errorf("release %s: not a snapshot", r.ID)
	}
	room := snapshot.NewRoom(filepath.Dir(filepath.Dir(r.ID)))
	if err := room.Remove(ctx, snapshot.ID(r.Instance)); err != nil && !errors.Is(err, snapshot.ErrUnknown) {
		return err
	}
	return nil
}
