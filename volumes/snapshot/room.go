package snapshot

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// ID names a snapshot; IDs sort by time.
type ID string

// Purpose is why a snapshot was taken.
type Purpose string

// The purposes.
const (
	Kept   Purpose = "kept"   // an operator asked for it; it stays until removed
	Passed Purpose = "passed" // a backup reads it; it goes with the backup
)

// Info is one snapshot.
type Info struct {
	ID      ID        `json:"id"`
	Volume  string    `json:"volume"`
	Source  string    `json:"source"` // the directory it was taken of
	Driver  string    `json:"driver"`
	Purpose Purpose   `json:"purpose"`
	Taken   time.Time `json:"taken"`
	TookNS  int64     `json:"took_ns"`
	Result
	// Hidden is the path in it of what is not the volume's: the room, when that lies inside.
	Hidden string `json:"hidden,omitempty"`
	Path   string `json:"path"` // where its tree is
}

const (
	record = "snapshot.json"
	body   = "tree"
	part   = ".part"
)

// RoomName is the name of a room that lies at the root of a mounted file system.
const RoomName = ".fairlead-snapshots"

// Room is a directory for snapshots. Its methods are safe for concurrent use, also by several agents.
type Room struct {
	path string
	step func(string) // called before each change; tests crash in it
}

// NewRoom makes a Room at path, which is made when the first snapshot is. It touches nothing.
func NewRoom(path string) *Room { return &Room{path: path, step: func(string) {}} }

// Path is the directory.
func (r *Room) Path() string { return r.path }

// Request asks for one snapshot.
type Request struct {
	Volume  string
	Source  string // absolute
	Purpose Purpose
	Driver  Driver // nil chooses
	Meter   *Meter // nil counts nothing
}

// Held is a snapshot that cannot be taken for a leftover while it is held. Release must be called once.
type Held struct {
	Info
	lock *os.File
}

// Release lets the snapshot go; it stays where it is.
func (h *Held) Release() error { return h.lock.Close() }

// Take takes a snapshot. When it fails, what was made is removed again. It blocks as long as the driver does, and for
// a sync of the file system.
func (r *Room) Take(ctx context.Context, q Request) (_ *Held, err error) {
	began := time.Now()
	if err := os.MkdirAll(r.path, 0o700); err != nil {
		return nil, fmt.Errorf("make room for snapshots: %w", err)
	}
	room, err := tree.Root(r.path)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	src, err := tree.Root(q.Source)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	source := Source{Dir: src, Meter: q.Meter}
	info := Info{ID: newID(began), Volume: q.Volume, Source: q.Source, Purpose: q.Purpose, Taken: began.UTC()}
	if inside, ok := strings.CutPrefix(r.path, strings.TrimSuffix(q.Source, "/")+"/"); ok {
		info.Hidden = inside
		if source.Hide, err = room.ID(); err != nil {
			return nil, err
		}
	}
	driver := q.Driver
	if driver == nil {
		driver, _ = Choose(src, room)
	}
	info.Driver = driver.Name()

	r.step("make")
	name := string(info.ID) + part
	into, err := room.Mkdir(name)
	if err != nil {
		return nil, err
	}
	defer into.Close()
	lock, err := hold(into)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// The context may be what ended; the leftover must go all the same.
			err = errors.Join(err, r.clear(context.WithoutCancel(ctx), room, name), lock.Close())
		}
	}()
	r.step("take")
	if info.Result, err = driver.Take(ctx, source, into, body); err != nil {
		return nil, fmt.Errorf("take %s snapshot of %s: %w", driver.Name(), q.Source, err)
	}
	info.TookNS, info.Path = time.Since(began).Nanoseconds(), filepath.Join(r.path, string(info.ID), body)
	r.step("describe")
	if err := describe(into, info); err != nil {
		return nil, err
	}
	r.step("sync")
	if err := unix.Syncfs(into.Fd()); err != nil {
		return nil, os.NewSyscallError("syncfs", err)
	}
	r.step("finish")
	if err := rename(room, name, string(info.ID)); err != nil {
		return nil, err
	}
	r.step("finished")
	return &Held{info, lock}, nil
}

// newID is the time and something random, because two may be taken in one second.
func newID(at time.Time) ID {
	random := make([]byte, 3)
	_, _ = rand.Read(random) // never fails
	return ID(at.UTC().Format("20060102T150405Z-") + hex.EncodeToString(random))
}

// hold locks the directory d; a second try fails while it is held. The kernel gives the lock back when the agent dies.
func hold(d *tree.Dir) (*os.File, error) {
	fd, err := unix.Openat(d.Fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), "lock")
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
	}
	return f, nil
}

func describe(d *tree.Dir, info Info) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	f, err := d.Create(record)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

func rename(d *tree.Dir, from, to string) error {
	if err := unix.Renameat(d.Fd(), from, d.Fd(), to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	if err := unix.Fsync(d.Fd()); err != nil {
		return os.NewSyscallError("fsync", err)
	}
	return nil
}

// List gives every finished snapshot, the oldest first. A room that was never used has none.
func (r *Room) List() ([]Info, error) {
	room, err := tree.Root(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer room.Close()
	names, err := room.Names()
	if err != nil {
		return nil, err
	}
	var out []Info
	var unread error
	for _, name := range names {
		if strings.HasSuffix(name, part) {
			continue
		}
		info, err := r.read(room, name)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			unread = errors.Join(unread, fmt.Errorf("read snapshot %s: %w", filepath.Join(r.path, name), err))
			continue
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b Info) int { return cmp.Compare(a.ID, b.ID) })
	return out, unread
}

func (r *Room) read(room *tree.Dir, name string) (info Info, err error) {
	d, err := room.Sub(name)
	if err != nil {
		return info, err
	}
	defer d.Close()
	e, err := d.Open(record)
	if err != nil {
		return info, err
	}
	defer e.Close()
	f, err := e.File()
	if err != nil {
		return info, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 64<<20)).Decode(&info); err != nil {
		return info, err
	}
	// The mount may have moved, and a container may reach a room inside its volume: only the name counts.
	info.ID, info.Path = ID(name), filepath.Join(r.path, name, body)
	return info, nil
}

// ErrUnknown is returned for a snapshot that is not there.
var ErrUnknown = errors.New("no such snapshot")

// ErrHeld is returned for a snapshot that a backup reads.
var ErrHeld = errors.New("snapshot is in use")

// Hold keeps a finished snapshot from being removed until it is released. It fails with ErrUnknown or ErrHeld.
func (r *Room) Hold(id ID) (*Held, error) {
	room, d, err := r.open(id)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	defer d.Close()
	lock, err := hold(d)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w", id, ErrHeld)
	}
	if err != nil {
		return nil, err
	}
	info, err := r.read(room, string(id))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Held{info, lock}, nil
}

func (r *Room) open(id ID) (room, d *tree.Dir, err error) {
	if !tree.ValidName(string(id)) || strings.HasSuffix(string(id), part) {
		return nil, nil, fmt.Errorf("%q: %w", id, ErrUnknown)
	}
	if room, err = tree.Root(r.path); err == nil {
		if d, err = room.Sub(string(id)); err == nil {
			return room, d, nil
		}
		err = errors.Join(err, room.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	return nil, nil, err
}

// Remove removes a snapshot. It fails with ErrUnknown when there is none and with ErrHeld when it is in use.
func (r *Room) Remove(ctx context.Context, id ID) error {
	h, err := r.Hold(id)
	if err != nil {
		return err
	}
	return r.Drop(ctx, h)
}

// Drop removes a snapshot that the caller holds, and releases it.
func (r *Room) Drop(ctx context.Context, h *Held) (err error) {
	defer func() { err = errors.Join(err, h.Release()) }()
	room, err := tree.Root(r.path)
	if err != nil {
		return err
	}
	defer room.Close()
	name := string(h.ID) + part
	r.step("unfinish")
	if err := rename(room, string(h.ID), name); err != nil {
		return err
	}
	r.step("clear")
	return r.clear(ctx, room, name)
}

// clear removes room/name, whose tree any driver may have made.
func (r *Room) clear(ctx context.Context, room *tree.Dir, name string) error {
	d, err := room.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := Btrfs().Remove(ctx, d, body); err != nil { // it also removes what is no subvolume
		return fmt.Errorf("remove snapshot %s: %w", name, err)
	}
	r.step("forget")
	return room.Remove(ctx, name)
}

// Sweep removes what a killed agent left: snapshots that were never finished or half removed, and those that a backup
// had taken for itself. What somebody holds is left alone. It gives what it removed.
func (r *Room) Sweep(ctx context.Context) (swept []string, err error) {
	room, err := tree.Root(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer room.Close()
	names, err := room.Names()
	for _, name := range names {
		gone, sweepErr := r.sweep(ctx, room, name)
		err = errors.Join(err, sweepErr)
		if gone {
			swept = append(swept, name)
		}
	}
	return swept, err
}

func (r *Room) sweep(ctx context.Context, room *tree.Dir, name string) (bool, error) {
	if !strings.HasSuffix(name, part) {
		info, err := r.read(room, name)
		if err != nil || info.Purpose != Passed {
			return false, nil // List says what cannot be read
		}
		h, err := r.Hold(info.ID)
		if err != nil {
			return false, nil // gone, or in use
		}
		return true, r.Drop(ctx, h)
	}
	d, err := room.Sub(name)
	if err != nil {
		return false, nil // gone meanwhile, or nothing of ours
	}
	defer d.Close()
	lock, err := hold(d)
	if err != nil {
		return false, nil // in work
	}
	defer lock.Close()
	return true, r.clear(ctx, room, name)
}
