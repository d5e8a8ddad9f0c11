package diskuse

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/btrfs.h and linux/btrfs_tree.h.
const (
	inoLookup    = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
	treeSearch   = 0xd0009411 // BTRFS_IOC_TREE_SEARCH
	firstFree    = 256        // the inode of each subvolume's root
	quotaTree    = 8
	qgroupStatus = 240
	qgroupInfo   = 242
	rescans      = 2 // flags of the status: its numbers are being made, or
	inconsistent = 4 // are not true

	sizeofKey, sizeofHeader = 104, 32
)

// qgroup asks btrfs for what the subvolume at path takes, which the file system keeps count of where its quotas are on: no
// file is looked at. What it shares with snapshots counts. It answers false for anything else. The count is that of the last
// commit, at most half a minute old.
func qgroup(path string) (bytes uint64, ok bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(path, &fs) != nil || fs.Type != unix.BTRFS_SUPER_MAGIC || unix.Stat(path, &st) != nil || st.Ino != firstFree {
		return 0, false
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	var lookup [4096]byte // treeid, objectid, name
	binary.NativeEndian.PutUint64(lookup[8:], firstFree)
	if ioctl(f, inoLookup, &lookup) != nil {
		return 0, false
	}
	status, ok := quotaItem(f, qgroupStatus, 0)
	if !ok || len(status) < 24 || binary.LittleEndian.Uint64(status[16:])&(rescans|inconsistent) != 0 {
		return 0, false
	}
	info, ok := quotaItem(f, qgroupInfo, binary.NativeEndian.Uint64(lookup[:])) // generation, referenced, ...
	if !ok || len(info) < 16 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(info[8:]), true
}

// quotaItem gives one item of the quota tree.
func quotaItem(f *os.File, kind uint32, offset uint64) ([]byte, bool) {
	var args [4096]byte
	order := binary.NativeEndian
	order.PutUint64(args[0:], quotaTree)
	order.PutUint64(args[24:], offset) // least and most offset; the object is 0
	order.PutUint64(args[32:], offset)
	order.PutUint64(args[48:], 1<<64-1) // of any transaction
	order.PutUint32(args[56:], kind)
	order.PutUint32(args[60:], kind)
	order.PutUint32(args[64:], 1) // items
	if ioctl(f, treeSearch, &args) != nil || order.Uint32(args[64:]) != 1 {
		return nil, false // quotas are off, or we may not ask
	}
	n := order.Uint32(args[sizeofKey+28:])
	item := args[sizeofKey+sizeofHeader:]
	return item[:min(int(n), len(item))], true
}

func ioctl(f *os.File, request uint, args *[4096]byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(args))); errno != 0 {
		return errno
	}
	return nil
}
