//go:build kernel

package diskuse

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestASubvolumeWithAQuotaIsNotWalked(t *testing.T) {
	hosttest.Require(t, "btrfs")
	at := hosttest.Btrfs(t)
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "btrfs", args...).CombinedOutput(); err != nil {
			t.Fatalf("btrfs %v: %v %s", args, err, out)
		}
	}
	vol := filepath.Join(at, "vol")
	run("subvolume", "create", vol)
	const size = 16 << 20
	write := func(name string) {
		t.Helper()
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(i * i >> 8)
		}
		if err := os.WriteFile(filepath.Join(vol, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Syncfs(fd); err != nil { // the count is that of the last commit
			t.Fatal(err)
		}
	}
	e := New(time.Hour, time.Now)
	estimate := func(path string) Estimate {
		t.Helper()
		got, err := e.walk(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	write("a")
	if got := estimate(vol); got.Counted || got.Inodes != 2 {
		t.Errorf("without quotas: %+v", got)
	}
	run("quota", "enable", at)
	run("quota", "rescan", "-w", at)
	for i, name := range []string{"b", "c"} {
		write(name)
		want := uint64(size * (i + 2))
		if got := estimate(vol); !got.Counted || got.Inodes != 0 || got.Bytes < want || got.Bytes > want+want/50 || got.TotalBytes == 0 {
			t.Errorf("%+v, want %d bytes", got, want)
		}
	}
	dir := filepath.Join(vol, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := estimate(dir); got.Counted || got.Inodes != 1 {
		t.Errorf("a directory that is no subvolume: %+v", got)
	}
}
