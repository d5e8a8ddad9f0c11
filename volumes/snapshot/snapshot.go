// Package snapshot takes copies of a directory tree that stay as they are: at once where the file system can share
// blocks, else by reading everything.
//
//	volume ── Choose ─> Driver (btrfs | reflink | copy) ─> room/ID.part/tree ── rename ─> room/ID/{snapshot.json, tree}
//
// It owns its rooms: directories for root only, on the file system of the volumes. A snapshot counts from the rename
// on. What is called .part after a crash was never finished or was being removed; Room.Sweep clears it, and tells it by
// a lock from one that somebody is working on.
package snapshot

import (
	"context"

	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Driver takes snapshots in one way. Implementations are safe for concurrent use.
type Driver interface {
	// Name is how records and people call the driver.
	Name() string
	// Fits tells whether snapshots of src can be taken into room, and why not. It leaves no trace.
	Fits(src, room *tree.Dir) error
	// Take makes the new entry name in room, a copy of src that does not change when src does. Directories on other
	// file systems below src are empty in it. What is half made after an error or a crash is for Remove.
	Take(ctx context.Context, src Source, room *tree.Dir, name string) (Result, error)
	// Remove removes what Take made, whole or half. It succeeds when there is nothing.
	Remove(ctx context.Context, room *tree.Dir, name string) error
}

// Source is the root of a volume.
type Source struct {
	*tree.Dir
	// Hide is a directory in it that belongs to us and not to the volume: the room, when it lies inside. A driver that
	// reads the volume leaves it out; in a btrfs snapshot it is there, without the snapshots.
	Hide tree.Inode
	// Meter, when it is not nil, is told what was read.
	Meter *Meter
}

// Result is what a Take found. The counts are zero where nothing was read.
type Result struct {
	Entries int64 `json:"entries,omitempty"`
	Bytes   int64 `json:"bytes,omitempty"`
	// Skipped are directories where another file system is mounted.
	Skipped []string `json:"skipped,omitempty"`
	// Changed are files that were written to while they were read, each time they were: their copy may be torn.
	Changed []string `json:"changed,omitempty"`
}

// Drivers are all, the one to prefer first.
func Drivers() []Driver { return []Driver{Btrfs(), Reflink(), Copy()} }

// Choose gives the first driver that fits, and why those before it do not. The last, copy, always does.
func Choose(src, room *tree.Dir) (Driver, []error) {
	var why []error
	for _, d := range Drivers() {
		err := d.Fits(src, room)
		if err == nil {
			return d, why
		}
		why = append(why, err)
	}
	return Copy(), why
}
