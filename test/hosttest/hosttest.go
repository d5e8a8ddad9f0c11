// Package hosttest gives tests what only a real host has: root, tools, network namespaces and container daemons.
//
// Everything is taken back by Cleanup, which fails the test when something is left. A tool that is missing skips the
// test with the name of the Debian package that has it; under CI=true it fails.
package hosttest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// packages says which Debian package has a tool whose package is not called like it.
var packages = map[string]string{
	"busybox": "busybox-static", "ctr": "containerd", "dockerd": "docker.io", "docker": "docker.io",
	"ip": "iproute2", "nft": "nftables", "ping": "iputils-ping", "rsyslogd": "rsyslog", "nsenter": "util-linux",
	"/usr/lib/cni/host-local": "containernetworking-plugins",
	"mkfs.btrfs":              "btrfs-progs", "mkfs.xfs": "xfsprogs",
}

// Require skips the test, or fails it under CI=true, unless it runs as root and all tools are installed.
func Require(t testing.TB, tools ...string) {
	t.Helper()
	Root(t)
	var missing []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			p, ok := packages[tool]
			if !ok {
				p = tool
			}
			missing = append(missing, tool+" (apt-get install "+p+")")
		}
	}
	if len(missing) > 0 {
		lack(t, "missing: "+strings.Join(missing, ", "))
	}
}

// Root skips the test, or fails it under CI=true, unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "needs root")
	}
}

func lack(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Dir gives a directory with a short path that is not on overlayfs: sockets have 107 bytes for their path, and an
// overlay cannot hold the upper directory of another. Cleanup removes it and fails when something is mounted below it.
func Dir(t testing.TB) string {
	t.Helper()
	for _, parent := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		const overlayMagic = 0x794c7630 // statfs(2)
		var st syscall.Statfs_t
		if err := syscall.Statfs(parent, &st); err != nil || st.Type == overlayMagic {
			continue
		}
		dir, err := os.MkdirTemp(parent, "fairlead-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil || strings.Contains(string(mounts), " "+dir+"/") {
				t.Errorf("mounts are left below %s (%v)", dir, err)
				return // removing would reach into what is mounted
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	lack(t, "/tmp, /var/tmp and /dev/shm are on overlayfs, which cannot hold container roots")
	return ""
}

// Containerd starts a containerd, with its CRI plugin when cri is true, and imports the busybox image into the
// namespaces default and, with CRI, k8s.io.
func Containerd(t testing.TB, cri bool) *daemons.ContainerdDaemon {
	t.Helper()
	Require(t, "containerd", "ctr", "runc", "busybox", "nsenter")
	dir := Dir(t)
	d, err := daemons.Containerd(t.Context(), daemons.Options{Dir: dir, CRI: cri})
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	image, err := daemons.BusyboxImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	namespaces := []string{"default"}
	if cri {
		namespaces = append(namespaces, "k8s.io")
	}
	for _, ns := range namespaces {
		if _, err := d.Ctr(t.Context(), ns, "image", "import", image); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// Dockerd starts a Docker Engine with an image called bb. With containerd it uses that one instead of its own.
func Dockerd(t testing.TB, containerd *daemons.ContainerdDaemon) *daemons.APIDaemon {
	t.Helper()
	Require(t, "dockerd", "docker", "containerd", "runc", "busybox", "nsenter")
	opts := daemons.Options{Dir: Dir(t)}
	if containerd != nil {
		opts.Containerd = containerd.Address
	}
	d, err := daemons.Dockerd(t.Context(), opts)
	return imported(t, d, err, opts.Dir)
}

// PodmanAPI starts Podman's API service with an image called bb.
func PodmanAPI(t testing.TB) *daemons.APIDaemon {
	t.Helper()
	Require(t, "podman", "runc", "busybox", "nsenter")
	dir := Dir(t)
	d, err := daemons.PodmanAPI(t.Context(), daemons.Options{Dir: dir})
	return imported(t, d, err, dir)
}

func imported(t testing.TB, d *daemons.APIDaemon, err error, dir string) *daemons.APIDaemon {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	rootfs, err := daemons.BusyboxRootfs(dir)
	if err == nil {
		_, err = d.Client(t.Context(), "import", rootfs, "bb")
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// cleanup stops a daemon at the end and fails the test when cgroups are left that were not there before.
func cleanup(t testing.TB, stop func(context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		// t.Context has ended already.
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		if err := stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Left gives the paths of cgroups, and the command lines of processes, that have text in them. A test that gave its
// containers a name of its own looks for that name at its end.
func Left(text string) ([]string, error) {
	var left []string
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/*" + text + "*")
	more, err2 := filepath.Glob("/sys/fs/cgroup/*/*/*" + text + "*")
	left = append(left, append(cgroups, more...)...)
	lines, err3 := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, _ := os.ReadFile(path) // it may have ended
		if strings.Contains(string(b), text) {
			left = append(left, filepath.Dir(path)+" "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return left, errors.Join(err, err2, err3)
}

// Journald gives a running systemd-journald of the test's own.
func Journald(t testing.TB) *daemons.JournalDaemon {
	t.Helper()
	Root(t)
	Require(t, "/lib/systemd/systemd-journald", "journalctl")
	d, err := daemons.Journald(context.Background(), daemons.Options{Dir: Dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	return d
}
