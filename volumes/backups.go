package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/volumes/backup"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Backup is one backup and where it is.
type Backup struct {
	Repository string `json:"repository"`
	backup.Manifest
}

// Progress is how far an operation is.
type Progress struct {
	Phase string `json:"phase"` // "snapshot", "backup", "restore", "verify"
	backup.Progress
}

// phase makes the reports of one phase out of say, which may be nil.
func phase(name string, say func(Progress)) func(backup.Progress) {
	if say == nil {
		return nil
	}
	return func(p backup.Progress) { say(Progress{name, p}) }
}

// Backup takes a snapshot of a volume, stores it in a repository (the only one, when its name is empty) and removes the
// snapshot. The repository is made when it was never there. say may be nil and is called about twice a second. When it
// returns nil the backup is durable and in the catalogue. It fails with ErrBusy while another works on the volume.
func (v *Volumes) Backup(ctx context.Context, name, repository string, say func(Progress)) (b Backup, err error) {
	ctx, done, err := v.begin(ctx)
	if err != nil {
		return Backup{}, err
	}
	defer func() { done(err) }()
	vol, err := v.find(name)
	if err != nil {
		return Backup{}, err
	}
	where, err := v.chosen(repository)
	if err != nil {
		return Backup{}, err
	}
	if within(where.Path, vol.Path) {
		return Backup{}, fmt.Errorf("volume %s holds repository %s in %s: it would be backed up into itself", vol.Name, where.Name, where.Path)
	}
	unlock, err := v.lock(vol)
	if err != nil {
		return Backup{}, err
	}
	defer unlock()
	ended := v.backingUp(vol, where)
	defer func() { ended(b.ID, err) }()
	room, held, err := v.take(ctx, vol, snapshot.Passed, say)
	if err != nil {
		return Backup{}, err
	}
	defer func() { err = errors.Join(err, room.Drop(context.WithoutCancel(ctx), held)) }()
	m, err := v.store(ctx, vol, where, held, say)
	if err != nil {
		return Backup{}, fmt.Errorf("backup of %s: %w", vol.Name, err)
	}
	v.metrics.backups.Inc()
	v.metrics.stored.Add(uint64(m.Stored))
	v.deps.Log.Info("backup made", "volume", vol.Name, "repository", where.Name, "backup", m.ID, "entries", m.Entries, "bytes", m.Bytes, "stored", m.Stored, "took", m.Finished.Sub(m.Started))
	if len(m.Skipped) > 0 {
		v.deps.Log.Warn("what is mounted inside a volume is not in its backup", "volume", vol.Name, "backup", m.ID, "paths", m.Skipped)
	}
	return Backup{where.Name, m}, nil
}

func (v *Volumes) store(ctx context.Context, vol Volume, where Repository, held *snapshot.Held, say func(Progress)) (m backup.Manifest, err error) {
	r, err := v.repository(ctx, where, true)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	root, err := tree.Root(held.Path)
	if err != nil {
		return m, err
	}
	defer root.Close()
	src := backup.Source{Volume: vol.Name, Node: v.deps.Node, Path: vol.Path, Snapshot: held.Driver, Taken: held.Taken, Changed: held.Changed}
	m, err = r.Backup(ctx, root, src, held.Hidden, phase("backup", say))
	m.Skipped, m.Root = merge(m.Skipped, held.Skipped), ""
	return m, err
}

func merge(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// Catalogue is what the repositories hold.
type Catalogue struct {
	Backups  []Backup `json:"backups"`  // the oldest first, of all hosts
	Problems []string `json:"problems"` // repositories that could not be asked, with the cause
}

// Backups asks every repository what it holds. A repository that was never used holds nothing.
func (v *Volumes) Backups(ctx context.Context) (_ Catalogue, err error) {
	out := Catalogue{Backups: []Backup{}, Problems: []string{}}
	ctx, done, err := v.begin(ctx)
	if err != nil {
		return out, err
	}
	defer func() { done(err) }()
	for _, where := range v.cfg.Repositories {
		err := v.with(ctx, where, func(r *backup.Repository) error {
			list, err := r.List(ctx)
			for _, m := range list {
				m.Root = "" // for the repository, not for people
				out.Backups = append(out.Backups, Backup{where.Name, m})
			}
			return err
		})
		if err != nil && !errors.Is(err, backup.ErrMissing) {
			out.Problems = append(out.Problems, err.Error())
		}
	}
	slices.SortFunc(out.Backups, func(a, b Backup) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// with opens a repository for f. It does not make one.
func (v *Volumes) with(ctx context.Context, where Repository, f func(*backup.Repository) error) (err error) {
	r, err := v.repository(ctx, where, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close(ctx)) }()
	return f(r)
}

// Wanted says which backup is meant. Empty fields leave it open: the newest, in any repository.
type Wanted struct {
	Volume     string
	ID         string // or its beginning
	Repository string
}

// lookup finds the backup that a person means.
func (v *Volumes) lookup(ctx context.Context, w Wanted) (Backup, Repository, error) {
	c, err := v.Backups(ctx)
	if err != nil {
		return Backup{}, Repository{}, err
	}
	var found []Backup
	for _, b := range c.Backups {
		if (w.Repository == "" || b.Repository == w.Repository) && strings.HasPrefix(string(b.ID), w.ID) &&
			(w.Volume == "" || b.Volume == w.Volume || afterRuntime(b.Volume) == w.Volume) {
			found = append(found, b)
		}
	}
	if err := w.check(found, c.Problems); err != nil {
		return Backup{}, Repository{}, err
	}
	b := found[len(found)-1]
	where, err := v.chosen(b.Repository)
	return b, where, err
}

// check says why none of what was found can be taken: doubt must not restore or remove the wrong one.
func (w Wanted) check(found []Backup, problems []string) error {
	if len(found) == 0 {
		what := "backup " + w.ID
		if w.ID == "" {
			what = "a backup of " + w.Volume
		}
		if len(problems) > 0 {
			return fmt.Errorf("%s is not found, and not every repository answers: %s", what, strings.Join(problems, "; "))
		}
		return fmt.Errorf("%s is %w; `fairlead volume backups` lists them", what, ErrUnknown)
	}
	first := found[0]
	for _, b := range found[1:] {
		if w.ID != "" {
			return fmt.Errorf("backup %s is %w: %s or %s", w.ID, ErrAmbiguous, short(first.ID), short(b.ID))
		}
		if b.Volume != first.Volume || b.Node != first.Node {
			return fmt.Errorf("volume %q is %w: %s of %s or %s of %s; name one backup", w.Volume, ErrAmbiguous, first.Volume, first.Node, b.Volume, b.Node)
		}
	}
	return nil
}

// afterRuntime gives the name that a runtime knows a named volume by, which may have a / in it itself.
func afterRuntime(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	_, rest, _ := strings.Cut(name, "/")
	return rest
}

// Restored is what a restore or a verification did.
type Restored struct {
	Backup Backup        `json:"backup"`
	To     string        `json:"to,omitempty"`
	Done   backup.Counts `json:"done"`
}

// Restore brings a backup back into the directory to, which must be empty or missing, and compares the hash of every
// file. It never writes to the volume itself: whoever wants that names its directory, empty.
func (v *Volumes) Restore(ctx context.Context, w Wanted, to string, say func(Progress)) (Restored, error) {
	if !filepath.IsAbs(to) {
		return Restored{}, fmt.Errorf("target %q is not an absolute path", to)
	}
	out, err := v.read(ctx, w, func(ctx context.Context, r *backup.Repository, b Backup) (backup.Counts, error) {
		return r.Restore(ctx, b.ID, filepath.Clean(to), phase("restore", say))
	})
	out.To = to
	if err == nil {
		v.metrics.restores.Inc()
		v.deps.Log.Info("backup restored", "volume", out.Backup.Volume, "backup", out.Backup.ID, "path", to, "entries", out.Done.Entries, "bytes", out.Done.Bytes)
	}
	return out, err
}

// Verify reads a whole backup and compares the hash of every file.
func (v *Volumes) Verify(ctx context.Context, w Wanted, say func(Progress)) (Restored, error) {
	return v.read(ctx, w, func(ctx context.Context, r *backup.Repository, b Backup) (backup.Counts, error) {
		return r.Verify(ctx, b.ID, phase("verify", say))
	})
}

func (v *Volumes) read(ctx context.Context, w Wanted, f func(context.Context, *backup.Repository, Backup) (backup.Counts, error)) (out Restored, err error) {
	ctx, done, err := v.begin(ctx)
	if err != nil {
		return out, err
	}
	defer func() { done(err) }()
	b, where, err := v.lookup(ctx, w)
	if err != nil {
		return out, err
	}
	out.Backup = b
	err = v.with(ctx, where, func(r *backup.Repository) error {
		out.Done, err = f(ctx, r, b)
		return err
	})
	return out, err
}

// Removed is what Remove took away.
type Removed struct {
	Kind   string `json:"kind"` // "snapshot" or "backup"
	ID     string `json:"id"`
	Volume string `json:"volume"`
	// Repository and Stored are of a backup: where its data stay, and how many bytes it had added there.
	Repository string `json:"repository,omitempty"`
	Stored     int64  `json:"stored,omitempty"`
}

// Remove removes the snapshot or the backup whose ID begins with id, which must mean one only. The space of a
// snapshot is free then; the data of a backup stay in its repository (see backup.Repository.Remove).
func (v *Volumes) Remove(ctx context.Context, id string) (_ Removed, err error) {
	ctx, done, err := v.begin(ctx)
	if err != nil {
		return Removed{}, err
	}
	defer func() { done(err) }()
	if len(id) < 4 {
		return Removed{}, fmt.Errorf("%q is too short: give at least 4 characters of an ID", id)
	}
	if r, ok, err := v.removeSnapshot(ctx, id); ok || err != nil {
		return r, err
	}
	b, where, err := v.lookup(ctx, Wanted{ID: id})
	if err != nil {
		return Removed{}, fmt.Errorf("no snapshot: %w", err)
	}
	err = v.with(ctx, where, func(r *backup.Repository) error { return r.Remove(ctx, b.ID) })
	if err == nil {
		v.deps.Log.Info("backup removed", "volume", b.Volume, "repository", where.Name, "backup", b.ID)
	}
	return Removed{"backup", string(b.ID), b.Volume, where.Name, b.Stored}, err
}
