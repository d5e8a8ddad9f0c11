//go:build kernel

package snapshot_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/fairlead-dev/fairlead/test/hosttest"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
	"github.com/fairlead-dev/fairlead/volumes/snapshot/snapshottest"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

func directory(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func subvolume(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "btrfs", "subvolume", "create", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestCopyDriverPassesTheSuite(t *testing.T) {
	hosttest.Root(t)
	snapshottest.Run(t, snapshot.Copy(), hosttest.Dir(t), directory)
}

func TestReflinkDriverPassesTheSuiteOnXFS(t *testing.T) {
	snapshottest.Run(t, snapshot.Reflink(), hosttest.XFS(t), directory)
}

func TestReflinkDriverPassesTheSuiteOnBtrfs(t *testing.T) {
	snapshottest.Run(t, snapshot.Reflink(), hosttest.Btrfs(t), directory)
}

func TestBtrfsDriverPassesTheSuite(t *testing.T) {
	snapshottest.Run(t, snapshot.Btrfs(), hosttest.Btrfs(t), subvolume)
}

func TestDriverIsChosenByWhatTheFileSystemCanDo(t *testing.T) {
	for _, c := range []struct {
		want string
		fs   func(testing.TB) string
		make func(*testing.T, string)
	}{
		{"copy", func(t testing.TB) string { return hosttest.Tmpfs(t, "1m") }, directory},
		{"reflink", hosttest.XFS, directory},
		{"reflink", hosttest.Btrfs, directory},
		{"btrfs", hosttest.Btrfs, subvolume},
	} {
		fs := c.fs(t)
		c.make(t, fs+"/volume")
		directory(t, fs+"/room")
		src, err := tree.Root(fs + "/volume")
		if err != nil {
			t.Fatal(err)
		}
		room, err := tree.Root(fs + "/room")
		if err != nil {
			t.Fatal(err)
		}
		got, why := snapshot.Choose(src, room)
		if got.Name() != c.want {
			t.Errorf("chosen %s, want %s; %v", got.Name(), c.want, why)
		}
		_ = src.Close()
		_ = room.Close()
	}
}
