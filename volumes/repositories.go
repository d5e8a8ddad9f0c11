package volumes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/volumes/backup"
)

// repositoryPromise is what is kept of a repository: without the key its backups are lost.
type repositoryPromise struct {
	Path string    `json:"path"`
	Key  string    `json:"key,omitempty"` // of our own making; empty when the configuration has it
	Made time.Time `json:"made,omitzero"` // when a repository was made or first opened there
}

// ErrNoRepository is returned where a backup is asked for and no repository is configured.
var ErrNoRepository = errors.New("no repository is configured")

func (v *Volumes) promiseFile(r Repository) string { return "repository-" + r.Name + ".json" }

// chosen gives the repository with this name, or the only one.
func (v *Volumes) chosen(name string) (Repository, error) {
	var names []string
	for _, r := range v.cfg.Repositories {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	switch {
	case len(names) == 0:
		return Repository{}, fmt.Errorf("%w; name one under volumes.repositories", ErrNoRepository)
	case name != "":
		return Repository{}, fmt.Errorf("repository %q is %w; there are %s", name, ErrUnknown, strings.Join(names, ", "))
	case len(names) > 1:
		return Repository{}, fmt.Errorf("repository is %w: name one of %s", ErrAmbiguous, strings.Join(names, ", "))
	}
	return v.cfg.Repositories[0], nil
}

// repository opens r; with create it is made when it was never there. A repository that was there and is not any more is
// an error: its disk may not be mounted, and a new one would hide that.
func (v *Volumes) repository(ctx context.Context, r Repository, create bool) (*backup.Repository, error) {
	v.keys.Lock() // two that make the same repository would make two keys
	defer v.keys.Unlock()
	var p repositoryPromise
	if _, err := v.deps.State.ReadJSON(v.promiseFile(r), &p); err != nil {
		return nil, err
	}
	if p.Path != r.Path {
		p.Path, p.Made = r.Path, time.Time{} // it was moved, or is another
	}
	opts := backup.Options{Name: r.Name, Path: r.Path, Key: r.Key, Node: v.deps.Node, Work: v.deps.State.File(filepath.Join("repositories", r.Name))}
	if opts.Key == "" {
		opts.Key = p.Key
	}
	fresh := opts.Key == ""
	if fresh {
		opts.Key = rand.Text() + rand.Text()[:10]
	}
	opened, err := backup.Open(ctx, opts)
	switch {
	case errors.Is(err, backup.ErrMissing) && !p.Made.IsZero():
		return nil, fmt.Errorf("repository %s was in %s since %s and is not there: is its disk mounted? To begin a new one, move %s away",
			r.Name, r.Path, p.Made.Format(time.DateTime), v.deps.State.File(v.promiseFile(r)))
	case errors.Is(err, backup.ErrMissing) && create:
		if err := v.create(ctx, r, opts, p); err != nil {
			return nil, err
		}
		return backup.Open(ctx, opts)
	case errors.Is(err, backup.ErrKey) && fresh:
		return nil, fmt.Errorf("repository %s in %s is another host's, or had another name here: set volumes.repositories.key to its key (in the %s of its host, or under its former name)",
			r.Name, r.Path, v.promiseFile(r))
	case err != nil:
		return nil, err
	}
	if p.Made.IsZero() {
		p.Made = time.Now().UTC()
		if err := v.deps.State.WriteJSON(v.promiseFile(r), p); err != nil {
			return nil, errors.Join(err, opened.Close(ctx))
		}
	}
	return opened, nil
}

// create makes a repository. The key is promised before anything is encrypted by it.
func (v *Volumes) create(ctx context.Context, r Repository, opts backup.Options, p repositoryPromise) error {
	if r.Key == "" {
		p.Key = opts.Key
	}
	if err := v.deps.State.WriteJSON(v.promiseFile(r), p); err != nil {
		return err
	}
	if err := backup.Create(ctx, opts); err != nil {
		return err
	}
	p.Made = time.Now().UTC()
	if err := v.deps.State.WriteJSON(v.promiseFile(r), p); err != nil {
		return err
	}
	v.deps.Log.Info("repository made", "repository", r.Name, "path", r.Path)
	if p.Key != "" {
		v.deps.Log.Warn("keep a copy of the repository's key elsewhere: without it its backups are lost", "repository", r.Name, "path", v.deps.State.File(v.promiseFile(r)))
	}
	return nil
}

// sweepRepository removes what a killed writer left half written.
func (v *Volumes) sweepRepository(r Repository) {
	n, err := backup.Sweep(r.Path, time.Now())
	if n > 0 {
		v.deps.Log.Warn("files that a killed backup left half written were removed", "repository", r.Name, "files", n)
	}
	if err != nil {
		v.deps.Log.Warn("repository could not be looked through for half written files", "repository", r.Name, "err", err)
	}
}

// short is how an ID is written for people.
func short(id backup.ID) string { return string(id[:min(12, len(id))]) }
