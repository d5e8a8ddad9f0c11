package backup

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Verify reads a whole backup, every byte of it, and compares every file's hash, as a restore would.
func (r *Repository) Verify(ctx context.Context, id ID, say func(Progress)) (Counts, error) {
	m, err := r.manifest(ctx, id)
	if err != nil {
		return Counts{}, err
	}
	root, err := m.root()
	if err != nil {
		return Counts{}, err
	}
	v := &verify{repository: r, links: map[LinkID]bool{}}
	v.meter.of = m.Counts
	stop := v.meter.report(ctx, say)
	defer stop()
	v.meter.entries.Add(1)
	if err := v.dir(ctx, root, ""); err != nil {
		return v.meter.counts(), fmt.Errorf("verify %s: %w", id, err)
	}
	if got := v.meter.counts(); got != m.Counts {
		return got, fmt.Errorf("verify %s: the manifest says %+v, found were %+v", id, m.Counts, got)
	}
	return m.Counts, nil
}

type verify struct {
	repository *Repository
	meter      meter
	links      map[LinkID]bool
}

func (v *verify) dir(ctx context.Context, e Entry, path string) error {
	object, err := v.repository.open(ctx, e.Object)
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	defer object.Close()
	d, err := newDirectoryReader(object)
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	for {
		e, err := d.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
		v.meter.entries.Add(1)
		if err := v.entry(ctx, e, join(path, e.Name)); err != nil {
			return err
		}
	}
}

func (v *verify) entry(ctx context.Context, e Entry, path string) error {
	switch e.Kind {
	case tree.Directory:
		return v.dir(ctx, e, path)
	case tree.File:
		v.meter.files.Add(1)
		if e.Link != (LinkID{}) {
			if v.links[e.Link] {
				return nil
			}
			v.links[e.Link] = true
		}
		if err := v.repository.content(ctx, e, nil, &v.meter); err != nil {
			return fmt.Errorf("file %q: %w", path, err)
		}
	}
	return nil
}
