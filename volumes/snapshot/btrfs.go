package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Btrfs takes read-only subvolume snapshots: of one moment, in milliseconds, without reading anything. The volume must
// be a subvolume itself; subvolumes below it are empty directories in the snapshot.
func Btrfs() Driver { return btrfs{} }

type btrfs struct{}

func (btrfs) Name() string { return "btrfs" }

// From linux/btrfs.h and linux/btrfs_tree.h.
const (
	subvolumeRootInode = 256 // BTRFS_FIRST_FREE_OBJECTID
	subvolReadOnly     = 1 << 1
	iocSnapDestroy     = 0x5000940f // _IOW(0x94, 15, 4096)
	iocSnapCreateV2    = 0x50009417 // _IOW(0x94, 23, 4096)
	iocFsInfo          = 0x8400941f // _IOR(0x94, 31, 1024)
)

type volArgs struct {
	fd   int64
	name [4088]byte
}

type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	_       [4]uint64
	name    [4040]byte
}

type fsInfo struct {
	maxID, devices uint64
	fsid           [16]byte
	_              [992]byte
}

func (btrfs) Fits(src, room *tree.Dir) error {
	a, err := filesystemID(src)
	if err != nil {
		return err
	}
	id, err := src.ID()
	if err != nil {
		return err
	}
	if id.Ino != subvolumeRootInode {
		return errors.New("btrfs: the volume is no subvolume of its own")
	}
	b, err := filesystemID(room)
	if err != nil {
		return err
	}
	if a != b {
		return errors.New("btrfs: snapshots would lie on another file system")
	}
	return nil
}

func filesystemID(d *tree.Dir) ([16]byte, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.Fd(), &st); err != nil {
		return [16]byte{}, err
	}
	if uint32(st.Type) != uint32(unix.BTRFS_SUPER_MAGIC) {
		return [16]byte{}, errors.New("btrfs: another file system")
	}
	var info fsInfo
	err := ioctl(d.Fd(), iocFsInfo, unsafe.Pointer(&info))
	return info.fsid, err
}

func (btrfs) Take(_ context.Context, src Source, room *tree.Dir, name string) (Result, error) {
	args := volArgsV2{fd: int64(src.Fd()), flags: subvolReadOnly}
	if len(name) >= len(args.name) {
		return Result{}, fmt.Errorf("btrfs: name %q is too long", name)
	}
	copy(args.name[:], name)
	if err := ioctl(room.Fd(), iocSnapCreateV2, unsafe.Pointer(&args)); err != nil {
		return Result{}, fmt.Errorf("take btrfs snapshot: %w", err)
	}
	return Result{}, nil
}

func (btrfs) Remove(ctx context.Context, room *tree.Dir, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(room.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	if st.Ino != subvolumeRootInode {
		return room.Remove(ctx, name)
	}
	var args volArgs
	if len(name) >= len(args.name) {
		return fmt.Errorf("btrfs: name %q is too long", name)
	}
	copy(args.name[:], name)
	if err := ioctl(room.Fd(), iocSnapDestroy, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("remove btrfs snapshot: %w", err)
	}
	return nil
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("ioctl", errno)
		}
	}
}
