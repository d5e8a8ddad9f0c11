package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// Snapshot takes a snapshot of a volume and keeps it until Remove. say may be nil and is called about twice a second.
func (v *Volumes) Snapshot(ctx context.Context, name string, say func(Progress)) (_ snapshot.Info, err error) {
	ctx, done, err := v.begin(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	defer func() { done(err) }()
	vol, err := v.find(name)
	if err != nil {
		return snapshot.Info{}, err
	}
	unlock, err := v.lock(vol)
	if err != nil {
		return snapshot.Info{}, err
	}
	defer unlock()
	_, held, err := v.take(ctx, vol, snapshot.Kept, say)
	if err != nil {
		return snapshot.Info{}, err
	}
	return held.Info, held.Release()
}

// take takes a snapshot; the caller must release or drop it.
func (v *Volumes) take(ctx context.Context, vol Volume, why snapshot.Purpose, say func(Progress)) (*snapshot.Room, *snapshot.Held, error) {
	room, err := v.room(vol)
	if err != nil {
		return nil, nil, err
	}
	meter := &snapshot.Meter{}
	stop := reportSnapshot(ctx, meter, say)
	held, err := room.Take(ctx, snapshot.Request{Volume: vol.Name, Source: vol.Path, Purpose: why, Meter: meter})
	stop()
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot of %s: %w", vol.Name, err)
	}
	v.metrics.snapshots.Inc()
	v.deps.Log.Info("snapshot taken", "volume", vol.Name, "snapshot", held.ID, "driver", held.Driver, "purpose", why, "took", held.TookNS)
	if len(held.Changed) > 0 {
		v.deps.Log.Warn("files were written to while they were copied", "volume", vol.Name, "snapshot", held.ID, "files", held.Changed)
	}
	return room, held, nil
}

// Snapshots gives every finished snapshot on this host, the oldest first; with an error for rooms that cannot be read.
func (v *Volumes) Snapshots() ([]snapshot.Info, error) {
	out := []snapshot.Info{}
	var unread error
	for _, path := range v.knownRooms() {
		list, err := snapshot.NewRoom(path).List()
		out, unread = append(out, list...), errors.Join(unread, err)
	}
	slices.SortFunc(out, func(a, b snapshot.Info) int { return cmp.Compare(a.ID, b.ID) })
	return out, unread
}

// removeSnapshot removes the snapshot whose ID begins with prefix; ok is false when there is none. The prefix must go
// beyond the date: digits alone may begin a backup's ID as well.
func (v *Volumes) removeSnapshot(ctx context.Context, prefix string) (_ Removed, ok bool, err error) {
	if !strings.Contains(prefix, "T") {
		return Removed{}, false, nil
	}
	var found []snapshot.Info
	var in *snapshot.Room
	for _, path := range v.knownRooms() {
		room := snapshot.NewRoom(path)
		list, _ := room.List() // what cannot be read cannot be meant
		for _, s := range list {
			if strings.HasPrefix(string(s.ID), prefix) {
				found, in = append(found, s), room
			}
		}
	}
	switch len(found) {
	case 0:
		return Removed{}, false, nil
	case 1:
		err := in.Remove(ctx, found[0].ID)
		if err == nil {
			v.deps.Log.Info("snapshot removed", "volume", found[0].Volume, "snapshot", found[0].ID)
		}
		return Removed{Kind: "snapshot", ID: string(found[0].ID), Volume: found[0].Volume}, true, err
	}
	return Removed{}, false, fmt.Errorf("%q is %w: snapshots %s, %s", prefix, ErrAmbiguous, found[0].ID, found[1].ID)
}
