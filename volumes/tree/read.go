package tree

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. It is safe for concurrent use, but for Names.
type Dir struct{ f *os.File }

// Root opens the directory at path. What leads to it may go through symbolic links, path itself may not be one: the
// owner of a volume must not be able to put something else in its place.
func Root(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, fmt.Errorf("open %s: not a directory (a symbolic link is not followed)", path)
		}
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{os.NewFile(uintptr(fd), path)}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.f.Close() }

// Fd is the directory's descriptor, valid until Close.
func (d *Dir) Fd() int { return int(d.f.Fd()) }

// Names gives the names of all entries, sorted by their bytes. It may be called again.
func (d *Dir) Names() ([]string, error) {
	if _, err := d.f.Seek(0, 0); err != nil {
		return nil, err
	}
	names, err := d.f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Node gives the directory's own Node, without a name.
func (d *Dir) Node() (Node, error) {
	e := Entry{fd: d.Fd()}
	if err := e.read(); err != nil {
		return Node{}, fmt.Errorf("read attributes of %s: %w", d.f.Name(), err)
	}
	return e.Node, nil
}

// ID is the directory's own identity.
func (d *Dir) ID() (Inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.Fd(), &st); err != nil {
		return Inode{}, &os.PathError{Op: "stat", Path: d.f.Name(), Err: err}
	}
	return Inode{st.Dev, st.Ino}, nil
}

// Entry is one entry of a directory, pinned by a descriptor: what is read of it is of this one, whatever its name
// stands for by then.
type Entry struct {
	Node
	ID    Inode
	Links uint64 // names that it has
	fd    int
}

// Inode is the identity of an entry while it is there.
type Inode struct{ Dev, Ino uint64 }

// Open pins the entry name and reads its Node. It opens no file, fifo or device, and follows no link.
func (d *Dir) Open(name string) (*Entry, error) {
	fd, err := unix.Openat(d.Fd(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	e := &Entry{fd: fd}
	if err := e.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read attributes of %q: %w", name, err), unix.Close(fd))
	}
	e.Name = name
	return e, nil
}

// Close lets the entry go.
func (e *Entry) Close() error { return unix.Close(e.fd) }

// Dir opens the directory that the entry is.
func (e *Entry) Dir() (*Dir, error) {
	fd, err := unix.Openat(e.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: e.Name, Err: err}
	}
	return &Dir{os.NewFile(uintptr(fd), e.Name)}, nil
}

// File opens the file that the entry is for reading, without touching its access time. It finds out where its holes
// are and fills Sparse and Extents.
func (e *Entry) File() (*os.File, error) {
	if e.Kind != File {
		return nil, fmt.Errorf("open %q: not a file", e.Name)
	}
	// The descriptor is O_PATH; its link in /proc gives one that can be read, of the same file.
	fd, err := unix.Open(procPath(e.fd), unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EPERM) { // neither root nor owner
		fd, err = unix.Open(procPath(e.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: e.Name, Err: err}
	}
	f := os.NewFile(uintptr(fd), e.Name)
	if e.Extents, e.Sparse, err = extents(fd, e.Size); err != nil {
		return nil, errors.Join(fmt.Errorf("find the holes of %q: %w", e.Name, err), f.Close())
	}
	return f, nil
}

// extents asks where the data of a file of this size is. A file system that does not know says: everywhere.
func extents(fd int, size int64) (out []Extent, sparse bool, err error) {
	for pos := int64(0); pos < size; {
		data, err := unix.Seek(fd, pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data behind pos
			break
		}
		if errors.Is(err, unix.EINVAL) && pos == 0 {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return nil, false, err
		}
		if data >= size { // it grew meanwhile
			break
		}
		out = append(out, Extent{data, min(hole, size) - data})
		pos = hole
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, false, err
	}
	if size == 0 || len(out) == 1 && out[0] == (Extent{0, size}) {
		return nil, false, nil
	}
	return out, true, nil
}

func (e *Entry) read() error {
	var st unix.Stat_t
	if err := unix.Fstat(e.fd, &st); err != nil {
		return err
	}
	e.ID, e.Links = Inode{st.Dev, st.Ino}, st.Nlink
	e.Kind, e.Mode, e.UID, e.GID = kindOf(st.Mode), st.Mode&0o7777, st.Uid, st.Gid
	e.MTime = Time{st.Mtim.Sec, uint32(st.Mtim.Nsec)}
	switch e.Kind {
	case File:
		e.Size = st.Size
	case CharDev, BlockDev:
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case Symlink:
		target, err := readlink(e.fd)
		if err != nil {
			return err
		}
		e.Target = target
	case Directory, Fifo, Socket:
	default:
		return fmt.Errorf("unknown kind of entry, mode %#o", st.Mode)
	}
	var err error
	e.Xattrs, err = xattrs(e.fd)
	return err
}

func readlink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// xattrs reads the attributes of what fd pins. A descriptor opened with O_PATH cannot be asked itself (EBADF), its link
// in /proc can, also that of a symbolic link, which is then not followed further.
func xattrs(fd int) ([]Xattr, error) {
	path := procPath(fd)
	list, err := grow(func(b []byte) (int, error) { return unix.Listxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var out []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if strings.HasPrefix(name, ours) {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Getxattr(path, name, b) })
		if errors.Is(err, unix.ENODATA) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		out = append(out, Xattr{name, value})
	}
	slices.SortFunc(out, func(a, b Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// grow calls read with buffers until one is large enough.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if err == nil {
			return b[:n:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > 1<<20 { // the kernel's limit is 64 KiB
			return nil, err
		}
	}
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Btrfs tells whether the directory is on btrfs, where some inode numbers have a meaning.
func (d *Dir) Btrfs() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(d.Fd(), &st) == nil && uint32(st.Type) == uint32(unix.BTRFS_SUPER_MAGIC)
}
