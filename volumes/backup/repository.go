package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sys/unix"
)

// Options say where a repository is.
type Options struct {
	Name string // for people
	Path string // of the directory, absolute
	Key  string // what its contents are encrypted by
	Work string // a local directory for kopia's configuration, absolute; it can be lost
	Node string // this host
}

// Repository is an open repository. It is safe for concurrent use; other processes and hosts may use the same
// directory at the same time.
type Repository struct {
	opts Options
	repo repo.DirectRepository
}

// What Open and Create find wrong.
var (
	// ErrMissing is returned where no repository is.
	ErrMissing = errors.New("there is no repository")
	// ErrKey is returned when the repository has another key.
	ErrKey = errors.New("the key does not fit the repository")
	// ErrForeign is returned for a directory in which something else lies.
	ErrForeign = errors.New("the directory is not empty and holds no repository")
)

// FullError says that a repository's disk is full. What it held before can be restored all the same.
type FullError struct {
	Name, Path string
	Free       uint64 // bytes, as far as known
	Err        error
}

func (e *FullError) Error() string {
	cause := e.Err
	if path, ok := errors.AsType[*os.PathError](e.Err); ok { // kopia says it once for each of its layers
		cause = path
	}
	return fmt.Sprintf("repository %s is full: %d MB are free on the disk of %s; earlier backups are untouched: %v", e.Name, e.Free>>20, e.Path, cause)
}

// Unwrap gives the cause.
func (e *FullError) Unwrap() error { return e.Err }

const (
	keyDerivation = "pbkdf2-sha256-600000" // the key is random; scrypt, the default, would take 64 MB for nothing
	packSize      = 10 << 20
	splitter      = "FIXED-1M" // data bases and images change in place
	hashing       = "BLAKE3-256-128"
	encryption    = "AES256-GCM-HMAC-SHA256"
	configFile    = "kopia.json"
)

// Create makes a repository in a directory that is empty or not there, or holds what an interrupted Create left. It
// does nothing where a repository is.
func Create(ctx context.Context, o Options) error {
	register()
	begun, err := inspect(o.Path)
	if err != nil || begun == whole {
		return o.explain(err)
	}
	st, err := newStorage(o.Path, true)
	if err != nil {
		return o.explain(err)
	}
	if begun == half {
		// kopia takes its second file without its first for a corruption.
		if err := st.DeleteBlob(ctx, format.KopiaBlobCfgBlobID); err != nil {
			return o.explain(err)
		}
	}
	err = repo.Initialize(ctx, st, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash: hashing, Encryption: encryption,
			MutableParameters: format.MutableParameters{Version: format.FormatVersion3, MaxPackSize: packSize},
		},
		ObjectFormat:                      format.ObjectFormat{Splitter: splitter},
		FormatBlockKeyDerivationAlgorithm: keyDerivation,
	}, o.Key)
	return o.explain(errors.Join(err, st.Close(ctx)))
}

type stage int

const (
	nothing stage = iota
	half
	whole
)

// inspect tells how much of a repository is in the directory path.
func inspect(path string) (stage, error) {
	list, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nothing, nil
	}
	if err != nil {
		return nothing, err
	}
	begun := nothing
	for _, e := range list {
		name := e.Name()
		switch {
		case name == format.KopiaRepositoryBlobID+".f":
			return whole, nil
		case name == format.KopiaBlobCfgBlobID+".f":
			begun = half
		case name == ".shards", name == "lost+found", strings.Contains(name, temporary):
		default:
			err = fmt.Errorf("%w: %q", ErrForeign, name)
		}
	}
	return begun, err
}

// Open opens a repository; it fails with ErrMissing or ErrKey where it has to be made or is another's. It blocks for
// the derivation of a key, some 0.2 s, and reads the index. Close must be called.
func Open(ctx context.Context, o Options) (*Repository, error) {
	register()
	begun, err := inspect(o.Path)
	if begun != whole {
		if err == nil || errors.Is(err, ErrForeign) {
			err = ErrMissing
		}
		return nil, o.explain(err)
	}
	if err := o.configure(); err != nil {
		return nil, o.explain(err)
	}
	r, err := repo.Open(ctx, filepath.Join(o.Work, configFile), o.Key, &repo.Options{
		DisableRepositoryLog: true, // it writes blobs even when one only reads
		DoNotWaitForUpgrade:  true,
		OnFatalError:         func(error) {}, // the default ends the process; the operation fails anyway
	})
	if err != nil {
		if errors.Is(err, repo.ErrInvalidPassword) {
			err = fmt.Errorf("%w: %w", ErrKey, err)
		}
		return nil, o.explain(err)
	}
	direct, ok := r.(repo.DirectRepository)
	if !ok {
		return nil, errors.Join(fmt.Errorf("open repository %s: kopia gave a %T", o.Name, r), r.Close(ctx))
	}
	return &Repository{o, direct}, nil
}

// configure writes the file that kopia's Open wants. It names no cache directory, which turns every cache off: what
// would be cached lies in a directory already. (With a directory but no size for it, kopia v0.22.3 panics.)
func (o Options) configure() error {
	if err := os.MkdirAll(o.Work, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(repo.LocalConfig{
		Storage: &blob.ConnectionInfo{Type: storageType, Config: &storageOptions{o.Path}},
		Caching: &content.CachingOptions{},
		ClientOptions: repo.ClientOptions{
			Hostname: o.Node, Username: "fairlead", Description: o.Name,
			FormatBlobCacheDuration: -1, // a directory that was replaced must not look like the former one
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Work, configFile), b, 0o600)
}

// Close closes the repository and gives the memory of its buffers back to the host, which the Go runtime would keep for
// minutes: 50 MB that an idle agent has no use for.
func (r *Repository) Close(ctx context.Context) error {
	err := r.repo.Close(context.WithoutCancel(ctx))
	debug.FreeOSMemory()
	return r.opts.explain(err)
}

// explain says which repository an error is of, and whether its disk is full.
func (o Options) explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		full := &FullError{Name: o.Name, Path: o.Path, Err: err}
		var st unix.Statfs_t
		if unix.Statfs(o.Path, &st) == nil {
			full.Free = st.Bavail * uint64(st.Bsize)
		}
		return full
	}
	return fmt.Errorf("repository %s in %s: %w", o.Name, o.Path, err)
}

// List gives every backup in the repository, of all hosts and volumes, the oldest first.
func (r *Repository) List(ctx context.Context) ([]Manifest, error) {
	found, err := r.repo.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: manifestType})
	if err != nil {
		return nil, r.opts.explain(err)
	}
	var out []Manifest
	for _, md := range found {
		m, err := r.manifest(ctx, ID(md.ID))
		if errors.Is(err, ErrUnknown) { // removed since
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Manifest) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (r *Repository) manifest(ctx context.Context, id ID) (Manifest, error) {
	var m Manifest
	md, err := r.repo.GetManifest(ctx, manifest.ID(id), &m)
	if errors.Is(err, manifest.ErrNotFound) || err == nil && md.Labels[manifest.TypeLabelKey] != manifestType {
		return m, fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	if err != nil {
		return m, r.opts.explain(err)
	}
	m.ID = id
	return m, nil
}

// Remove takes a backup out of the catalogue: it can be neither listed nor restored any more. No space becomes free. Its
// data stay in the repository, of which other backups, those that are being made by other hosts right now too, may use
// any part; this version collects nothing.
func (r *Repository) Remove(ctx context.Context, id ID) error {
	if _, err := r.manifest(ctx, id); err != nil {
		return err
	}
	return r.opts.explain(repo.WriteSession(ctx, r.repo, repo.WriteSessionOptions{Purpose: "remove"},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			return w.DeleteManifest(ctx, manifest.ID(id))
		}))
}

// open gives a reader of an object that an entry names.
func (r *Repository) open(ctx context.Context, name string) (object.Reader, error) {
	id, err := object.ParseID(name)
	if err != nil {
		return nil, fmt.Errorf("object %q: %w", name, err)
	}
	return r.repo.OpenObject(ctx, id)
}
