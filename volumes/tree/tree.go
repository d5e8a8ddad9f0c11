// Package tree reads and makes directory entries with everything that belongs to them: kind, mode, owner, time,
// extended attributes (with them ACLs and capabilities), hard links, holes, devices and names of any bytes.
//
// It works by descriptors: every entry is opened relative to its directory, never through a symbolic link, and what is
// read afterwards is read from that descriptor. Whoever changes a tree meanwhile cannot lead us out of it.
//
//	Root ─> Dir.Names ─> Dir.Open ─> Entry (pinned) ─> Node, Dir, File
//	Dir.Mkdir | Create | Make | Link ─> Apply (owner, mode, attributes, time: in this order)
//
// It owns nothing; what is half made after a crash belongs to its caller.
package tree

import (
	"golang.org/x/sys/unix"
)

// Kind is what an entry is.
type Kind byte

// The kinds. Their values are part of the backup format.
const (
	File      Kind = 'f'
	Directory Kind = 'd'
	Symlink   Kind = 'l'
	Fifo      Kind = 'p'
	Socket    Kind = 's'
	CharDev   Kind = 'c'
	BlockDev  Kind = 'b'
)

var formats = map[Kind]uint32{
	File: unix.S_IFREG, Directory: unix.S_IFDIR, Symlink: unix.S_IFLNK, Fifo: unix.S_IFIFO,
	Socket: unix.S_IFSOCK, CharDev: unix.S_IFCHR, BlockDev: unix.S_IFBLK,
}

// Known tells whether k is one of the kinds.
func (k Kind) Known() bool { _, ok := formats[k]; return ok }

func kindOf(mode uint32) Kind {
	for k, format := range formats {
		if mode&unix.S_IFMT == format {
			return k
		}
	}
	return 0
}

// Node is everything about an entry but the bytes of a file and the entries of a directory.
type Node struct {
	Name     string // any bytes but '/' and 0; empty for a root
	Kind     Kind
	Mode     uint32 // 07777: permissions, setuid, setgid, sticky; 0777 for a symlink
	UID, GID uint32
	MTime    Time
	Size     int64   // of a file, holes included
	Xattrs   []Xattr // by name
	Target   string  // of a symlink
	Major    uint32  // of a device
	Minor    uint32
	// Sparse says that the file has holes; then Extents are its data, in order.
	Sparse  bool
	Extents []Extent
}

// Time is a moment as the kernel has it; time.Time's nanoseconds since 1970 end in 2262, a file system's may not.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Xattr is one extended attribute; ACLs are system.posix_acl_*, capabilities are security.capability.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a piece of a file that has data.
type Extent struct{ Off, Len int64 }

// Data gives the pieces of the file that have data: all of it when it has no holes.
func (n *Node) Data() []Extent {
	switch {
	case n.Sparse:
		return n.Extents
	case n.Size == 0:
		return nil
	}
	return []Extent{{0, n.Size}}
}

// ours are attributes with which Fairlead marks its own work; they belong to no volume.
const ours = "trusted.fairlead."

// ValidName tells whether name can be an entry of a directory.
func ValidName(name string) bool {
	if name == "" || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}
