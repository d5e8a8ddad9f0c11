package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// cloneData shares the blocks of from, holes included. A file that the file system refuses to share is copied: btrfs
// answers EINVAL where one of the two is not copy-on-write (chattr +C, as databases have it).
func cloneData(ctx context.Context, to, from *os.File, n *tree.Node) error {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ETXTBSY):
		return copyData(ctx, to, from, n)
	case err != nil:
		return os.NewSyscallError("FICLONE", err)
	}
	return nil
}

// probeClone clones a file that has no name from one directory to the other.
func probeClone(src, room *tree.Dir) error {
	from, err := nameless(src)
	if err != nil {
		return fmt.Errorf("reflink: try it in the volume: %w", err)
	}
	defer from.Close()
	to, err := nameless(room)
	if err != nil {
		return fmt.Errorf("reflink: try it beside the volume: %w", err)
	}
	defer to.Close()
	if _, err := from.Write(make([]byte, 4096)); err != nil {
		return fmt.Errorf("reflink: try it in the volume: %w", err)
	}
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		return fmt.Errorf("reflink: the file system does not share blocks: %w", os.NewSyscallError("FICLONE", err))
	}
	return nil
}

func nameless(d *tree.Dir) (*os.File, error) {
	fd, err := unix.Openat(d.Fd(), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, os.NewSyscallError("O_TMPFILE", err)
	}
	return os.NewFile(uintptr(fd), "probe"), nil
}
