package tail

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// PinDir is the directory, at the top of the mount that a log lies on, that holds hard links to logs not yet delivered.
const PinDir = ".fairlead-pins"

// Pins keeps generations on disk by hard links, so that a rotation or a removed container destroys nothing while the
// agent is down. The nil Pins holds nothing; then only open descriptors keep a generation, as long as the agent runs.
// It is safe for concurrent use.
type Pins struct {
	*pinned
	epoch string // of the ledger whose places the links serve
	whose Whose  // the container whose logs these are
}

// pinned is what all the Pins of one agent share.
type pinned struct {
	owner string // tells agents on one machine apart
	log   *slog.Logger
	// dir gives the pin directory for logs in a directory of the host.
	dir func(file string) (string, error)

	once sync.Map // directories that refuse links, said once
	held sync.Map // links in use, by path
	seen sync.Map // pin directories looked at
}

// Whose names a container; zero for the host's own files.
type Whose struct{ Runtime, ID string }

// NewPins makes links named for owner and epoch. Nothing is touched until a file is held.
// dir is where the links go; "" means PinDir at the top of each log's mount.
func NewPins(owner, epoch, dir string, log *slog.Logger) *Pins {
	p := &Pins{pinned: &pinned{owner: owner, log: log, dir: mountPinDir}, epoch: epoch}
	if dir != "" {
		p.dir = func(string) (string, error) { return dir, nil }
		p.seen.Store(dir, true)
	}
	return p
}

// For gives Pins whose links name that container, for those who find them when all else is lost.
func (p *Pins) For(w Whose) *Pins {
	if p == nil {
		return nil
	}
	return &Pins{pinned: p.pinned, epoch: p.epoch, whose: w}
}

// hold links f into the pin directory and gives the function that removes the link, or nil when there can be none.
func (p *Pins) hold(f *os.File, id Identity, root Root, path string) (unpin func()) {
	if p == nil {
		return nil
	}
	link, err := p.link(id, root, path)
	if _, held := p.held.Load(link); held {
		return func() { p.drop(link) }
	}
	if err == nil {
		if err = os.MkdirAll(filepath.Dir(link), 0o700); err == nil {
			// Linking /proc/self/fd/N keeps this file and no other, whatever the path leads to by now.
			err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, link, unix.AT_SYMLINK_FOLLOW)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// ENOENT: the file has no name any more, so it cannot be given one; the descriptor keeps it.
		if _, said := p.once.LoadOrStore(filepath.Dir(link), true); !said && !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("logs here are kept by descriptor only, not over a restart", "path", path, "err", err)
		}
		return nil
	}
	p.held.Store(link, true)
	return func() { p.drop(link) }
}

// found is one link that an earlier run made.
type found struct {
	file  *os.File
	id    Identity
	unpin func()
}

// all opens the links that an earlier run made for path.
func (p *Pins) all(root Root, path string) (out []found) {
	if p == nil {
		return nil
	}
	prefix, err := p.name(root, path)
	if err != nil {
		return nil
	}
	entries, _ := os.ReadDir(filepath.Dir(prefix)) // not there: nothing was pinned
	for _, e := range entries {
		link := filepath.Join(filepath.Dir(prefix), e.Name())
		if !strings.HasPrefix(link, prefix+"-") {
			continue
		}
		f, err := Host.Open(link)
		if err != nil {
			continue
		}
		id, err := identify(int(f.Fd()))
		if err != nil {
			_ = f.Close()
			continue
		}
		p.held.Store(link, true)
		out = append(out, found{f, id, func() { p.drop(link) }})
	}
	return out
}

// name is what the links of one path begin with: DIR/OWNER-PATHHASH.
func (p *Pins) name(root Root, path string) (string, error) {
	full := filepath.Join(string(root), path)
	dir, err := p.dir(filepath.Dir(full))
	p.seen.Store(dir, true)
	h := fnv.New64a()
	_, _ = h.Write([]byte(full))
	return filepath.Join(dir, fmt.Sprintf("%s-%016x", p.owner, h.Sum64())), err
}

func (p *Pins) link(id Identity, root Root, path string) (string, error) {
	name, err := p.name(root, path)
	return fmt.Sprintf("%s-%d-%d%s", name, id.Ino, id.Birth, p.suffix()), err
}

// drop removes a link, and its directory with the last one.
func (p *pinned) drop(link string) {
	p.held.Delete(link)
	_ = os.Remove(link)
	_ = os.Remove(filepath.Dir(link)) // fails while others hold something there
}

// Sweep removes links that a former run of this agent made and nobody holds. It is called when every saved stream has
// been opened. Links of another epoch stay: the places that told whether they are done with are lost.
func (p *Pins) Sweep() {
	if p == nil {
		return
	}
	p.seen.Range(func(dir, _ any) bool {
		entries, _ := os.ReadDir(dir.(string)) // not there: nothing to sweep
		for _, e := range entries {
			if pin, ok := p.parse(dir.(string), e.Name()); ok && !pin.Held && !pin.Foreign {
				p.drop(pin.Link)
			}
		}
		return true
	})
}

// mountPinDir goes up from dir to the top of its mount: link(2) between two mounts of one file system is EXDEV. A
// directory that is gone is looked for by its nearest ancestor.
func mountPinDir(dir string) (string, error) {
	mount := func(dir string) (uint64, error) {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID, &st)
		return st.Mnt_id, err
	}
	id, err := mount(dir)
	for ; errors.Is(err, unix.ENOENT) && dir != "/"; id, err = mount(dir) {
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return "", fmt.Errorf("find mount of %s: %w", dir, err)
	}
	// Symbolic links would lead the way up astray.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", fmt.Errorf("find mount: %w", err)
	}
	above := func() bool { // what cannot be asked counts as another mount
		up, err := mount(filepath.Dir(dir))
		return err == nil && up == id
	}
	for dir != "/" && above() {
		dir = filepath.Dir(dir)
	}
	return filepath.Join(dir, PinDir), nil
}
