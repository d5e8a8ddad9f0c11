package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

const roomsFile = "rooms.json"

// open reads the promises.
func (v *Volumes) open() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rooms != nil {
		return nil
	}
	if _, err := v.deps.State.ReadJSON(roomsFile, &v.rooms); err != nil {
		return err
	}
	if _, err := v.deps.State.ReadJSON(lastFile, &v.last); err != nil {
		return err
	}
	if v.rooms == nil {
		v.rooms = []string{}
	}
	return nil
}

// knownRooms gives every room that may have snapshots: those that were used, and those of the volumes that are known
// now, should the state have been lost.
func (v *Volumes) knownRooms() []string {
	v.mu.Lock()
	rooms := slices.Clone(v.rooms)
	v.mu.Unlock()
	for _, vol := range v.Volumes() {
		if room, err := v.roomPath(vol.Path); err == nil {
			rooms = append(rooms, room)
		}
	}
	slices.Sort(rooms)
	return slices.Compact(rooms)
}

// room gives the room for a volume's snapshots and keeps in mind, durably and before it is used, where it is.
func (v *Volumes) room(vol Volume) (*snapshot.Room, error) {
	path, err := v.roomPath(vol.Path)
	if err != nil {
		return nil, fmt.Errorf("find room for a snapshot of %s: %w", vol.Name, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.rooms, path) {
		rooms := append(slices.Clone(v.rooms), path)
		if err := v.deps.State.WriteJSON(roomsFile, rooms); err != nil {
			return nil, err
		}
		v.rooms = rooms
	}
	return snapshot.NewRoom(path), nil
}

// roomPath gives where snapshots of a directory lie: on its file system and reached through the same mount, because
// neither a rename nor, on older kernels, a reflink crosses mounts. That is the state directory when it can be, else a
// directory at the root of the mount; the root may be the volume itself, then the drivers leave the room out.
func (v *Volumes) roomPath(dir string) (string, error) {
	want, err := mountOf(dir)
	if err != nil {
		return "", err
	}
	own := v.deps.State.File("snapshots")
	if m, err := mountOf(v.deps.State.Path()); err == nil && m == want {
		return own, nil
	}
	top := dir
	for top != "/" {
		m, err := mountOf(filepath.Dir(top))
		if err != nil {
			return "", err
		}
		if m != want {
			break
		}
		top = filepath.Dir(top)
	}
	return filepath.Join(top, snapshot.RoomName), nil
}

// mountOf gives the identity of the mount that path is reached through.
func mountOf(path string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	if err != nil {
		return 0, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_MNT_ID == 0 { // before Linux 5.8; the device is as good unless it is mounted twice
		return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
	}
	return st.Mnt_id, nil
}
