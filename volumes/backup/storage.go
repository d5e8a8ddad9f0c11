package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
)

// storageType is how kopia's configuration names our storage.
const storageType = "fairlead-directory"

// storageOptions are what kopia's configuration keeps of it.
type storageOptions struct {
	Path string `json:"path"`
}

// register tells kopia of our storage; its registry is one for the process.
var register = sync.OnceFunc(func() {
	blob.AddSupportedStorage(storageType, storageOptions{}, func(_ context.Context, o *storageOptions, create bool) (blob.Storage, error) {
		return newStorage(o.Path, create)
	})
})

// storage keeps blobs as files, laid out as kopia's own file system storage does, so that its program reads them. Why not
// that one: it syncs nothing, so that a power cut can take what a manifest names; it tries ten times, for seven seconds,
// where the disk is full; and it leaves its temporary file there each time.
type storage struct {
	sharded.Storage
	blob.DefaultProviderImplementation
}

func newStorage(path string, create bool) (blob.Storage, error) {
	if create {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", path)
	}
	// One level of 256 to 4096 directories; the number of packs is the repository's size by 10 MB.
	return &storage{Storage: sharded.New(files{path}, path, sharded.Options{DirectoryShards: []int{1, 3}}, create)}, nil
}

func (s *storage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &storageOptions{Path: s.RootPath}}
}

func (s *storage) DisplayName() string { return "directory " + s.RootPath }

// step is called before each change to a repository or a restored tree; tests crash in it.
var step = func(string) {}

// files implements sharded.Impl.
type files struct{ root string }

func (files) GetBlobFromPath(_ context.Context, _, path string, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()
	f, err := os.Open(path)
	if err != nil {
		return notFound(err)
	}
	defer f.Close()
	var from io.Reader = f
	if length >= 0 {
		from = io.NewSectionReader(f, offset, length)
	}
	if _, err := io.Copy(out, from); err != nil {
		return err
	}
	return blob.EnsureLengthExactly(out.Length(), length)
}

func (files) GetMetadataFromPath(_ context.Context, _, path string) (blob.Metadata, error) {
	st, err := os.Stat(path)
	if err != nil {
		return blob.Metadata{}, notFound(err)
	}
	return blob.Metadata{Length: st.Size(), Timestamp: st.ModTime()}, nil
}

// temporary is in the name of a file that is being written.
const temporary = ".tmp."

func (s files) PutBlobInPath(_ context.Context, dir, path string, data blob.Bytes, opts blob.PutOptions) (err error) {
	if opts.HasRetentionOptions() || opts.DoNotRecreate {
		return blob.ErrUnsupportedPutBlobOption
	}
	if err := s.makeDir(dir); err != nil {
		return err
	}
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	tmp := path + temporary + hex.EncodeToString(random)
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // a sweep finds it, should that fail
		}
	}()
	step("write")
	if err := writeSynced(tmp, data); err != nil {
		return err
	}
	if t := opts.SetModTime; !t.IsZero() {
		if err := os.Chtimes(tmp, t, t); err != nil {
			return err
		}
	}
	step("rename")
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	step("renamed")
	if t := opts.GetModTime; t != nil {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		*t = st.ModTime()
	}
	return syncDir(dir)
}

// makeDir makes dir and what is missing above it, each durable.
func (s files) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && dir != s.root:
		if err := s.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		return s.makeDir(dir)
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func writeSynced(path string, data blob.Bytes) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = data.WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (files) DeleteBlobInPath(_ context.Context, _, path string) error {
	step("delete")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (files) ReadDir(_ context.Context, path string) ([]os.FileInfo, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var out []os.FileInfo
	for _, e := range list {
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // deleted since
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return blob.ErrBlobNotFound
	}
	return err
}

// staleAfter is when a temporary file cannot be in work any more, whoever writes it: one blob is some 10 MB.
const staleAfter = 24 * time.Hour

// Sweep removes, from the directory of a repository, files that a killed writer left half written at least a day ago. It
// gives how many. It succeeds when there is no such directory.
func Sweep(root string, now time.Time) (removed int, err error) {
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if e.IsDir() || !strings.Contains(e.Name(), temporary) {
			return nil
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if now.Sub(st.ModTime()) < staleAfter {
			return nil // in work
		}
		removed++
		return os.Remove(path)
	})
	return removed, err
}
