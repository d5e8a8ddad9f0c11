package tree

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Clear removes every entry of d and what is below, without following a link or leaving the file system. It may be
// called again after a crash in the middle. A mount below is an error, and stays.
func (d *Dir) Clear(ctx context.Context) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.Remove(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes the entry name and what is below. It succeeds when there is none.
func (d *Dir) Remove(ctx context.Context, name string) error {
	err := unix.Unlinkat(d.Fd(), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// EISDIR on Linux, EPERM by POSIX; an immutable file says EPERM, too, and is none.
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	sub, subErr := d.Sub(name)
	if subErr != nil {
		return errors.Join(&os.PathError{Op: "remove", Path: name, Err: err}, subErr)
	}
	defer sub.Close()
	if same, err := sameFilesystem(d, sub); err != nil || !same {
		return errors.Join(fmt.Errorf("remove %q: another file system is mounted there", name), err)
	}
	if err := sub.Clear(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := unix.Unlinkat(d.Fd(), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

func sameFilesystem(a, b *Dir) (bool, error) {
	x, err := a.ID()
	y, err2 := b.ID()
	return x.Dev == y.Dev, errors.Join(err, err2)
}
