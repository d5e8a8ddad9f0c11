package diskuse

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/fs.h, linux/quota.h and linux/dqblk_xfs.h.
const (
	fsGetXAttr      = 0x801c581f        // FS_IOC_FSGETXATTR
	projectInherits = 0x200             // FS_XFLAG_PROJINHERIT: what is made in the directory belongs to its project
	getQuota        = ('X'<<8|3)<<8 | 2 // QCMD(Q_XGETQUOTA, PRJQUOTA), which ext4 answers too
	quotaBlocks     = 40                // d_bcount of fs_disk_quota, in sectors of 512 bytes
	quotaInodes     = 48                // d_icount
	mostBeside      = 100               // files that a layer's directory has beside the layer
)

// project asks the file system for what the tree at path takes, which XFS and ext4 keep count of for each project where its
// accounting is on: no file is looked at. It answers false unless the tree, and no other around it, is a project, and
// before Linux 5.14. Docker and Podman make a project of the directory around a container's layer; what little there is
// beside the layer is then taken off. What belongs to no name any more but is open still counts, and so does another tree
// to which somebody gave the same project.
func project(path string) (bytes, inodes uint64, ok bool) {
	tree, ok := owner(path)
	if !ok {
		return 0, 0, false
	}
	var beside walk
	above := filepath.Dir(path)
	if around, ok := owner(above); ok && around == tree {
		if further, ok := owner(filepath.Dir(above)); ok && further == tree || !beside.around(path) {
			return 0, 0, false
		}
	}
	f, err := openDir(path)
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	var quota [112]byte // fs_disk_quota
	if _, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), getQuota, uintptr(tree.project), uintptr(unsafe.Pointer(&quota)), 0, 0); errno != 0 {
		return 0, 0, false // accounting is off, or we may not ask
	}
	bytes = binary.NativeEndian.Uint64(quota[quotaBlocks:]) * 512
	inodes = binary.NativeEndian.Uint64(quota[quotaInodes:])
	if inodes <= beside.out.Inodes || bytes < beside.out.Bytes {
		return 0, 0, false // it was not all of one project
	}
	return bytes - beside.out.Bytes, inodes - beside.out.Inodes, true
}

// owned says what is charged for what is made in a directory: a project of a file system.
type owned struct {
	dev     uint64
	project uint32
}

// owner answers false when that is no project, or when there is no directory at path.
func owner(path string) (owned, bool) {
	f, err := openDir(path)
	if err != nil {
		return owned{}, false
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return owned{}, false
	}
	var attr [28]byte // fsxattr: flags, extent size, extents, project
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsGetXAttr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		return owned{}, false
	}
	o := owned{st.Dev, binary.NativeEndian.Uint32(attr[12:])}
	return o, o.project != 0 && binary.NativeEndian.Uint32(attr[:])&projectInherits != 0
}

// openDir opens a directory and nothing else: a pipe would hold us up.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// around counts the directory around the tree at path and what is in it but not in the tree. It answers false when that is
// more than an engine puts there.
func (w *walk) around(path string) bool {
	above := filepath.Dir(path)
	var st unix.Stat_t
	if unix.Lstat(above, &st) != nil {
		return false
	}
	w.dev, w.twice = st.Dev, map[uint64]bool{}
	for w.count(above); len(w.dirs) > 0; {
		dir := w.dirs[len(w.dirs)-1]
		w.dirs = w.dirs[:len(w.dirs)-1]
		f, err := openDir(dir)
		if err != nil {
			return false
		}
		names, _ := f.Readdirnames(mostBeside + 2) // more than may be there, the tree itself aside
		_ = f.Close()
		for _, name := range names {
			if at := filepath.Join(dir, name); at != path {
				w.count(at)
			}
		}
		if w.out.Inodes > mostBeside {
			return false
		}
	}
	return true
}
