package tree

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Mkdir makes the directory name, for its owner only until Apply, and opens it.
func (d *Dir) Mkdir(name string) (*Dir, error) {
	if err := unix.Mkdirat(d.Fd(), name, 0o700); err != nil {
		return nil, &os.PathError{Op: "make directory", Path: name, Err: err}
	}
	return d.Sub(name)
}

// Sub opens the directory name; a symbolic link is an error.
func (d *Dir) Sub(name string) (*Dir, error) {
	fd, err := unix.Openat(d.Fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: name, Err: err}
	}
	return &Dir{os.NewFile(uintptr(fd), name)}, nil
}

// Create makes the file name, for its owner only until Apply.
func (d *Dir) Create(name string) (*os.File, error) {
	fd, err := unix.Openat(d.Fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Make makes an entry that is neither file nor directory, with all its attributes.
func (d *Dir) Make(n Node) error {
	var err error
	switch n.Kind {
	case Symlink:
		err = unix.Symlinkat(n.Target, d.Fd(), n.Name)
	case Fifo, Socket:
		err = unix.Mknodat(d.Fd(), n.Name, formats[n.Kind]|0o600, 0)
	case CharDev, BlockDev:
		err = unix.Mknodat(d.Fd(), n.Name, formats[n.Kind]|0o600, int(unix.Mkdev(n.Major, n.Minor)))
	default:
		err = fmt.Errorf("kind %q cannot be made without content", n.Kind)
	}
	if err != nil {
		return &os.PathError{Op: "make", Path: n.Name, Err: err}
	}
	fd, err := unix.Openat(d.Fd(), n.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: n.Name, Err: err}
	}
	return errors.Join(Apply(fd, n), unix.Close(fd))
}

// Link gives the entry at path, relative to root, the further name in d.
func (d *Dir) Link(root *Dir, path, name string) error {
	at, last, done, err := root.walk(path)
	if err != nil {
		return fmt.Errorf("link %q to %q: %w", name, path, err)
	}
	defer done()
	if err := unix.Linkat(at.Fd(), last, d.Fd(), name, 0); err != nil {
		return &os.LinkError{Op: "link", Old: path, New: name, Err: err}
	}
	return nil
}

// walk opens the directory that holds path, step by step: a path may be longer than the kernel takes at once.
func (d *Dir) walk(path string) (at *Dir, last string, done func(), err error) {
	at, done = d, func() {}
	for {
		first, rest, more := strings.Cut(path, "/")
		if !more {
			return at, first, done, nil
		}
		next, err := at.Sub(first)
		done()
		if err != nil {
			return nil, "", nil, err
		}
		at, done, path = next, func() { _ = next.Close() }, rest
	}
}

// Apply gives what fd pins the owner, mode, attributes and time of n. The order matters: a change of owner clears
// setuid and capabilities, a change of mode the mask of an ACL, and every change the time.
// An attribute that the file system does not take is a *LostError; the rest is applied all the same.
func Apply(fd int, n Node) error {
	path := procPath(fd)
	if err := unix.Fchownat(fd, "", int(n.UID), int(n.GID), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner of %q: %w", n.Name, err)
	}
	if n.Kind != Symlink { // which has no mode on Linux
		if err := unix.Chmod(path, n.Mode); err != nil {
			return fmt.Errorf("set mode of %q: %w", n.Name, err)
		}
	}
	var lost error
	for _, x := range n.Xattrs {
		err := unix.Setxattr(path, x.Name, x.Value, 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			lost = errors.Join(lost, &LostError{n.Name, x.Name, err})
		} else if err != nil {
			return fmt.Errorf("set attribute %s of %q: %w", x.Name, n.Name, err)
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: n.MTime.Sec, Nsec: int64(n.MTime.Nsec)}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0); err != nil {
		return errors.Join(fmt.Errorf("set time of %q: %w", n.Name, err), lost)
	}
	return lost
}

// LostError is an extended attribute that the file system of the copy does not take.
type LostError struct {
	Name, Attribute string
	Err             error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("set attribute %s of %q: %v", e.Attribute, e.Name, e.Err)
}

// Unwrap gives the kernel's answer.
func (e *LostError) Unwrap() error { return e.Err }
