package hosttest

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Btrfs gives an empty btrfs of 300 MB, mounted on a loop device. Cleanup unmounts it.
func Btrfs(t testing.TB) string {
	t.Helper()
	return filesystem(t, 300<<20, "loop", "mkfs.btrfs", "-q")
}

// XFS gives an empty XFS with reflinks of 320 MB, mounted on a loop device. Cleanup unmounts it.
func XFS(t testing.TB) string {
	t.Helper()
	return filesystem(t, 320<<20, "loop", "mkfs.xfs", "-q", "-m", "reflink=1")
}

// ProjectQuota gives an empty file system of the given type, xfs or ext4, mounted on a loop device, that accounts projects.
// It skips the test where the kernel cannot do that. Cleanup unmounts it.
func ProjectQuota(t testing.TB, fstype string) string {
	t.Helper()
	mkfs, feature := []string{"mkfs.xfs", "-q"}, "CONFIG_XFS_QUOTA"
	if fstype == "ext4" {
		mkfs, feature = []string{"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"}, "CONFIG_QFMT_V2"
	}
	config, err := kernelConfig()
	if err != nil {
		t.Skipf("whether this kernel has project quotas is unknown: %v", err)
	}
	if !strings.Contains(config, feature+"=y\n") && !strings.Contains(config, feature+"=m\n") {
		t.Skipf("this kernel has no project quotas on %s: it was built without %s", fstype, feature)
	}
	return filesystem(t, 320<<20, "loop,prjquota", mkfs...)
}

// kernelConfig is what the running kernel was built with.
func kernelConfig() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	if b, err := os.ReadFile("/boot/config-" + unix.ByteSliceToString(u.Release[:])); err == nil {
		return string(b), nil
	}
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(z)
	return string(b), err
}

// Tmpfs gives a file system of the given size in memory: one that is soon full. Cleanup unmounts it.
func Tmpfs(t testing.TB, size string) string {
	t.Helper()
	Root(t)
	dir := mountPoint(t)
	if err := unix.Mount("fairlead-test", dir, "tmpfs", 0, "nr_inodes=0,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

func filesystem(t testing.TB, size int64, options string, mkfs ...string) string {
	t.Helper()
	Require(t, mkfs[0], "mount", "umount")
	dir := mountPoint(t)
	image := dir + ".image"
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(image); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.CommandContext(t.Context(), mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(mkfs, " "), err, out)
	}
	// The loop device is released by the kernel with the last mount (autoclear).
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", options, image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount %s: %v\n%s", image, err, out)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

func mountPoint(t testing.TB) string {
	t.Helper()
	dir := Dir(t) + "/fs"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func unmount(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
}
