// Package treetest makes a directory tree with every kind of entry that a backup tool may lose, and compares two trees
// by everything that the kernel says of them. It shares no code with what it tests and owns nothing.
package treetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Compare gives one line for each difference between the trees below a and b, the roots themselves included: missing
// entries, kind, mode, owner, time in nanoseconds, size, device number, link target, extended attributes (with ACLs and
// capabilities), content, holes, and which names are one file. Access and change times cannot be restored, or are
// changed by looking, and are not compared; neither is what another mount shows below.
func Compare(a, b string) ([]string, error) {
	left, err := scan(a)
	if err != nil {
		return nil, err
	}
	right, err := scan(b)
	if err != nil {
		return nil, err
	}
	var out []string
	say := func(path, format string, args ...any) {
		out = append(out, fmt.Sprintf("%q: ", path)+fmt.Sprintf(format, args...))
	}
	for _, path := range paths(left, right) {
		x, inLeft := left[path]
		y, inRight := right[path]
		switch {
		case !inRight:
			say(path, "only in %s", a)
		case !inLeft:
			say(path, "only in %s", b)
		default:
			for _, d := range x.differs(y) {
				say(path, "%s", d)
			}
		}
	}
	return out, nil
}

func paths(a, b map[string]*seen) []string {
	var out []string
	for p := range a {
		out = append(out, p)
	}
	for p := range b {
		if a[p] == nil {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// seen is what the kernel says of one path.
type seen struct {
	path   string // to open it
	stat   unix.Stat_t
	target string
	xattrs string
	names  []string // all names of this inode in the tree, sorted
}

func scan(root string) (map[string]*seen, error) {
	out, inodes := map[string]*seen{}, map[uint64][]string{}
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return nil, fmt.Errorf("look at %s: %w", root, err)
	}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		s := &seen{path: path}
		if err := s.look(); err != nil {
			return fmt.Errorf("look at %q: %w", path, err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		out[rel] = s
		inodes[s.stat.Ino] = append(inodes[s.stat.Ino], rel)
		if s.stat.Dev != top.Dev && e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	for _, s := range out {
		if s.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			s.names = inodes[s.stat.Ino]
			slices.Sort(s.names)
		}
	}
	return out, err
}

func (s *seen) look() error {
	if err := unix.Lstat(s.path, &s.stat); err != nil {
		return err
	}
	if s.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		if s.target, err = os.Readlink(s.path); err != nil {
			return err
		}
	}
	var err error
	s.xattrs, err = attributes(s.path)
	return err
}

func attributes(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var all []string
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	slices.Sort(all)
	return strings.Join(all, " "), nil
}

func (s *seen) differs(o *seen) []string {
	var out []string
	kind := s.stat.Mode & unix.S_IFMT
	if kind != o.stat.Mode&unix.S_IFMT {
		return []string{fmt.Sprintf("kind %#o, %#o", kind, o.stat.Mode&unix.S_IFMT)}
	}
	out = differ(out, "mode", fmt.Sprintf("%#o", s.stat.Mode), fmt.Sprintf("%#o", o.stat.Mode))
	out = differ(out, "owner", s.stat.Uid, o.stat.Uid)
	out = differ(out, "group", s.stat.Gid, o.stat.Gid)
	out = differ(out, "time", fmt.Sprintf("%d.%09d", s.stat.Mtim.Sec, s.stat.Mtim.Nsec), fmt.Sprintf("%d.%09d", o.stat.Mtim.Sec, o.stat.Mtim.Nsec))
	out = differ(out, "target", s.target, o.target)
	out = differ(out, "attributes", s.xattrs, o.xattrs)
	out = differ(out, "names", strings.Join(s.names, "|"), strings.Join(o.names, "|"))
	switch kind {
	case unix.S_IFCHR, unix.S_IFBLK:
		out = differ(out, "device", s.stat.Rdev, o.stat.Rdev)
	case unix.S_IFREG:
		out = differ(out, "size", s.stat.Size, o.stat.Size)
		out = append(out, differsInside(s.path, o.path)...)
	}
	return out
}

func differ[T cmp.Ordered](out []string, what string, a, b T) []string {
	if a != b {
		return append(out, fmt.Sprintf("%s %v, %v", what, a, b))
	}
	return out
}

// differsInside compares content and holes.
func differsInside(a, b string) []string {
	x, err := os.Open(a)
	if err != nil {
		return []string{err.Error()}
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return []string{err.Error()}
	}
	defer y.Close()
	out := differ(nil, "data at", holes(x), holes(y))
	bx, by := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; {
		n, errX := x.ReadAt(bx, off)
		m, errY := y.ReadAt(by, off)
		if !bytes.Equal(bx[:n], by[:m]) {
			return append(out, fmt.Sprintf("content in the MiB at %d", off))
		}
		if errX != nil || errY != nil {
			if fmt.Sprint(errX) != fmt.Sprint(errY) {
				out = append(out, fmt.Sprintf("reading: %v, %v", errX, errY))
			}
			return out
		}
		off += int64(n)
	}
}

// holes writes where a file has data, as its file system says.
func holes(f *os.File) string {
	var out strings.Builder
	for pos := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
		if err != nil {
			break // ENXIO: no more
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			break
		}
		fmt.Fprintf(&out, "[%d,%d)", data, hole)
		pos = hole
	}
	return out.String()
}
