//go:build kernel

package diskuse

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestATreeThatIsAProjectIsNotWalkedOnXFS(t *testing.T)  { projectIsNotWalked(t, "xfs") }
func TestATreeThatIsAProjectIsNotWalkedOnExt4(t *testing.T) { projectIsNotWalked(t, "ext4") }

func projectIsNotWalked(t *testing.T, fstype string) {
	at := hosttest.ProjectQuota(t, fstype)
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		t.Fatal(err)
	}
	e := New(time.Hour, time.Now)
	// same holds what the file system has counted against what du would say: they may differ by a block. XFS takes what was
	// removed off its count in the background, a moment later.
	same := func(path string) {
		t.Helper()
		for deadline := time.Now().Add(hosttest.Bound(10 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
			got, err := e.walk(t.Context(), path)
			want := du(t, path)
			if err == nil && got.Counted && got.Inodes == want.Inodes && max(got.Bytes, want.Bytes)-min(got.Bytes, want.Bytes) <= uint64(fs.Bsize) && got.TotalBytes > 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %+v, %v; du says %d bytes, %d inodes", path, got, err, want.Bytes, want.Inodes)
			}
		}
	}
	walked := func(path, why string) {
		t.Helper()
		if got, err := e.walk(t.Context(), path); err != nil || got.Counted || got.Inodes != du(t, path).Inodes {
			t.Errorf("%s: %s: %+v, %v", why, path, got, err)
		}
	}

	vol := filepath.Join(at, "vol")
	fill(t, vol)
	walked(vol, "it belongs to no project")

	volume := filepath.Join(at, "volume")
	mkdir(t, volume)
	setProject(t, volume, 4711)
	fill(t, volume)
	same(volume)
	if err := os.WriteFile(filepath.Join(volume, "more"), make([]byte, 5<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	same(volume)
	if err := os.RemoveAll(filepath.Join(volume, "d0")); err != nil {
		t.Fatal(err)
	}
	same(volume)

	// As Docker and Podman lay it out: ID is the project, ID/diff the layer.
	engine := filepath.Join(at, "overlay2/id")
	mkdir(t, engine)
	setProject(t, engine, 4712)
	for _, dir := range []string{"work/work", "merged"} {
		mkdir(t, filepath.Join(engine, dir))
	}
	for _, file := range []string{"link", "lower"} {
		if err := os.WriteFile(filepath.Join(engine, file), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	layer := filepath.Join(engine, "diff")
	fill(t, layer)
	same(layer)
	walked(filepath.Join(layer, "d1"), "the project is a larger tree")
	for i := range 2 * mostBeside {
		if err := os.WriteFile(filepath.Join(engine, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	walked(layer, "the project is a larger tree")
}

// fill makes directories and files of several sizes below dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	for i := range 300 {
		path := filepath.Join(dir, fmt.Sprintf("d%d/f%d", i%3, i))
		mkdir(t, filepath.Dir(path))
		if err := os.WriteFile(path, make([]byte, i*300), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "d0/f0"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// du walks the tree at path whatever its file system could tell.
func du(t *testing.T, path string) Estimate {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	w := walk{dev: st.Dev, twice: map[uint64]bool{}}
	for w.count(path); len(w.dirs) > 0; {
		dir := w.dirs[0]
		w.dirs = w.dirs[1:]
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			w.count(filepath.Join(dir, entry.Name()))
		}
	}
	return w.out
}

// setProject makes the empty directory at path a project, as an engine does.
func setProject(t *testing.T, path string, id uint32) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const set = 0x401c5820 // FS_IOC_FSSETXATTR
	var attr [28]byte
	for _, request := range []uintptr{fsGetXAttr, set} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&attr))); errno != 0 {
			t.Fatalf("project of %s: %v", path, errno)
		}
		binary.NativeEndian.PutUint32(attr[:], binary.NativeEndian.Uint32(attr[:])|projectInherits)
		binary.NativeEndian.PutUint32(attr[12:], id)
	}
}
