package backup

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/zeebo/blake3"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

const (
	compressor  = "zstd-fastest"
	together    = 3                // files that are read at the same time
	flushEvery  = 30 * time.Second // what was stored until then is found again after a kill -9
	bufferBytes = 256 << 10
)

// Backup stores the tree below root, which must not change meanwhile: a snapshot. hidden is the path in it of an entry
// that is left out, or empty. say, which may be nil, is called about twice a second.
// When it returns nil the backup is durable; else the repository has the backups that it had.
func (r *Repository) Backup(ctx context.Context, root *tree.Dir, src Source, hidden string, say func(Progress)) (Manifest, error) {
	m := Manifest{Format: treeFormat, Source: src, Started: time.Now().UTC()}
	w := &walk{hidden: hidden, links: map[tree.Inode]*Entry{}}
	stop := w.meter.report(ctx, say)
	defer stop()
	opts := repo.WriteSessionOptions{Purpose: "backup", OnUpload: func(n int64) { w.meter.stored.Add(n) }}
	ctx, writer, err := r.repo.NewWriter(ctx, opts)
	if err != nil {
		return m, r.opts.explain(err)
	}
	defer func() { _ = writer.Close(context.WithoutCancel(ctx)) }() // it was flushed, or is given up
	w.repo = writer
	entry, err := w.tree(ctx, root)
	if err != nil {
		return m, r.opts.explain(err)
	}
	m.Counts, m.Skipped = w.meter.counts(), w.skipped
	m.Root = base64.StdEncoding.EncodeToString(encodeEntry(&entry))
	if err := writer.Flush(ctx); err != nil {
		return m, r.opts.explain(err)
	}
	m.Finished, m.Stored = time.Now().UTC(), w.meter.stored.Load()
	labels := map[string]string{manifest.TypeLabelKey: manifestType, "node": src.Node}
	id, err := writer.PutManifest(ctx, labels, m)
	if err == nil {
		err = writer.Flush(ctx)
	}
	if err != nil {
		return m, r.opts.explain(err)
	}
	m.ID = ID(id)
	return m, nil
}

// walk is one Backup.
type walk struct {
	repo    repo.RepositoryWriter
	hidden  string
	dev     uint64
	btrfs   bool
	meter   meter
	links   map[tree.Inode]*Entry // the first of an entry's names
	skipped []string
	buffers sync.Pool
}

// tree stores everything below root and gives its entry. Meanwhile it flushes now and then.
func (w *walk) tree(ctx context.Context, root *tree.Dir) (Entry, error) {
	node, err := root.Node()
	if err != nil {
		return Entry{}, err
	}
	id, err := root.ID()
	if err != nil {
		return Entry{}, err
	}
	w.dev, w.btrfs = id.Dev, root.Btrfs()
	entry := Entry{Node: node}
	flushing, stop := context.WithCancel(ctx)
	defer stop()
	g := agent.NewGroup(flushing)
	g.Go(w.flush)
	entry.Object, err = w.dir(ctx, root, "")
	stop()
	if err := errors.Join(err, g.Wait()); err != nil {
		return Entry{}, err
	}
	w.meter.entries.Add(1)
	return entry, nil
}

// flush makes durable, now and then, what was stored so far.
func (w *walk) flush(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := w.repo.Flush(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// dir stores a directory's entries: files, a few at a time, then the directories below, then the object that lists all.
func (w *walk) dir(ctx context.Context, d *tree.Dir, path string) (string, error) {
	names, err := d.Names()
	if err != nil {
		return "", fmt.Errorf("list %q: %w", path, err)
	}
	entries := make([]*Entry, 0, len(names))
	same := map[int]*Entry{} // by position: another name of an entry that may still be in work
	g, free := agent.NewGroup(ctx), make(chan struct{}, together)
	var dirs []int
	walkErr := func() error {
		for _, name := range names {
			if w.hidden != "" && join(path, name) == w.hidden {
				continue
			}
			e, err := d.Open(name)
			if err != nil {
				return err
			}
			out := &Entry{Node: e.Node}
			entries = append(entries, out)
			w.meter.entries.Add(1)
			if e.Kind == tree.File {
				w.meter.files.Add(1)
			}
			if e.Links > 1 && e.Kind != tree.Directory {
				first, known := w.links[e.ID]
				if known {
					same[len(entries)-1] = first
					if err := e.Close(); err != nil {
						return err
					}
					continue
				}
				out.Link = linkID(join(path, name))
				w.links[e.ID] = out
			}
			switch e.Kind {
			case tree.File:
				select {
				case free <- struct{}{}:
				case <-ctx.Done():
					return errors.Join(context.Cause(ctx), e.Close())
				}
				g.Go(func(ctx context.Context) error {
					defer func() { <-free }()
					return errors.Join(w.file(ctx, e, out, join(path, name)), e.Close())
				})
				continue
			case tree.Directory:
				if w.elsewhere(e) {
					w.skipped = append(w.skipped, join(path, name))
					out.Object, err = w.list(ctx, nil)
				} else {
					dirs = append(dirs, len(entries)-1)
				}
			}
			if err := errors.Join(err, e.Close()); err != nil {
				return err
			}
		}
		return nil
	}()
	if err := errors.Join(walkErr, g.Wait()); err != nil {
		return "", err
	}
	for _, i := range dirs {
		if err := w.subdir(ctx, d, entries[i], path); err != nil {
			return "", err
		}
	}
	for i, first := range same {
		name := entries[i].Name
		*entries[i] = *first
		entries[i].Name = name
	}
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	return w.list(ctx, entries)
}

// elsewhere tells whether another file system, or a btrfs subvolume, is mounted at e. In a btrfs snapshot a subvolume
// is replaced by an empty directory, whose inode is always 2 (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID).
func (w *walk) elsewhere(e *tree.Entry) bool {
	return e.ID.Dev != w.dev || w.btrfs && e.ID.Ino == 2
}

func (w *walk) subdir(ctx context.Context, d *tree.Dir, e *Entry, path string) error {
	sub, err := d.Sub(e.Name)
	if err != nil {
		return err
	}
	defer sub.Close()
	e.Object, err = w.dir(ctx, sub, join(path, e.Name))
	return err
}

// list stores the object of a directory.
func (w *walk) list(ctx context.Context, entries []*Entry) (string, error) {
	o := w.repo.NewObjectWriter(ctx, object.WriterOptions{Prefix: "k", Compressor: compressor, MetadataCompressor: compressor})
	defer o.Close()
	d, err := newDirectoryWriter(o)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if err := d.add(e); err != nil {
			return "", err
		}
	}
	if err := d.close(); err != nil {
		return "", err
	}
	id, err := o.Result()
	return id.String(), err
}

// file stores the data of a file and fills in what out has to say of it.
func (w *walk) file(ctx context.Context, e *tree.Entry, out *Entry, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("store %q: %w", path, err)
		}
	}()
	f, err := e.File()
	if err != nil {
		return err
	}
	defer f.Close()
	out.Node = e.Node // now it says where the holes are
	o := w.repo.NewObjectWriter(ctx, object.WriterOptions{Compressor: compressor, MetadataCompressor: compressor, AsyncWrites: 1})
	defer o.Close()
	hash := blake3.New()
	for _, x := range e.Data() {
		if err := w.extent(ctx, f, x, io.MultiWriter(hash, o)); err != nil {
			return err
		}
	}
	hash.Sum(out.Hash[:0])
	id, err := o.Result()
	out.Object = id.String()
	return err
}

func (w *walk) extent(ctx context.Context, f *os.File, x tree.Extent, to io.Writer) error {
	buf, ok := w.buffers.Get().(*[]byte)
	if !ok {
		buf = new(make([]byte, bufferBytes))
	}
	defer w.buffers.Put(buf)
	for from := io.NewSectionReader(f, x.Off, x.Len); x.Len > 0; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := from.Read(*buf)
		if n > 0 {
			if _, err := to.Write((*buf)[:n]); err != nil {
				return err
			}
			x.Len -= int64(n)
			w.meter.bytes.Add(int64(n))
		}
		if errors.Is(err, io.EOF) && x.Len > 0 {
			return errors.New("it became shorter while it was read")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

func linkID(path string) (id LinkID) {
	sum := blake3.Sum256([]byte(path))
	return LinkID(slices.Clone(sum[:len(id)]))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}
