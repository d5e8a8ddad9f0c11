// Package tail follows files that programs write and rotate: it finds them below a root that may be hostile, tells
// their generations apart by content, keeps each generation open until it is released, and says when something moved.
//
//	app.log.2 ── app.log.1 ── app.log      one Series: generations oldest first, the last is written to
//	  Seq 1        Seq 2        Seq 3
//
// It owns its descriptors, one inotify instance, and the hard links in .fairlead-pins. Those links outlive a crash: the
// next start finds a generation there that was removed meanwhile, and removes links that nobody asks for.
package tail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is returned for what is no regular file: a fifo would block, a device has effects.
var ErrNotRegular = errors.New("not a regular file")

// Root is a directory below which paths are resolved as a process would that has it as its root: symbolic links,
// absolute ones and "..", never lead out. So nobody in a container can make us read a file of the host.
type Root string

// Host is the host's own root.
const Host Root = "/"

// Open opens the regular file at path below the root for reading. Looking at what is there has no effect on it.
func (r Root) Open(path string) (*os.File, error) {
	fd, err := r.open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s in %s: %w", path, r, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s in %s: %w", path, r, ErrNotRegular)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY, 0)
}

// Regular tells whether a regular file is at path.
func (r Root) Regular(path string) bool {
	fd, err := r.open(path, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// Identify tells which file is at path now.
func (r Root) Identify(path string) (Identity, error) {
	fd, err := r.open(path, unix.O_PATH)
	if err != nil {
		return Identity{}, err
	}
	defer unix.Close(fd)
	return identify(fd)
}

// ReadDir gives the names in the directory at path, and its true path on the host, by which it can be watched.
func (r Root) ReadDir(path string) (names []string, real string, err error) {
	fd, err := r.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, "", err
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	if real, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return nil, "", err
	}
	names, err = d.Readdirnames(-1)
	return names, real, err
}

// Real gives the true path on the host of the directory at path.
func (r Root) Real(path string) (string, error) {
	fd, err := r.open(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

func (r Root) open(path string, flags uint64) (int, error) {
	root, err := unix.Open(string(r), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: string(r), Err: err}
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		// EAGAIN: something was renamed while ".." was being resolved (openat2(2)).
		fd, err := unix.Openat2(root, filepath.Clean("/"+path), &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open in " + string(r), Path: path, Err: err}
		}
		return fd, nil
	}
}

// Identity tells one file from all others that were ever there. Inode numbers are given again; with the time of birth
// they are not. Birth is 0 on file systems that do not keep it.
type Identity struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Birth int64  `json:"birth"` // nanoseconds since 1970
}

// Same tells whether both are one file. Device numbers may change over a reboot, so a known birth outweighs them.
func (id Identity) Same(o Identity) bool {
	return id.Ino == o.Ino && id.Birth == o.Birth && (id.Birth != 0 || id.Dev == o.Dev)
}

func identify(fd int) (Identity, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return Identity{}, fmt.Errorf("statx: %w", err)
	}
	id := Identity{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}
