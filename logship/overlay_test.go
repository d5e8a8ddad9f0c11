//go:build kernel

package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestAFileWrittenThroughAnOverlayIsFollowedAndDoesNotHoldTheMount(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(merged, unix.MNT_DETACH)
		}
	})
	c := container.Container{ID: "c1", Name: "c1", Runtime: "docker", State: container.Running,
		Labels: map[string]string{LabelLogs: "/var/log/*.log"}, Rootfs: container.Rootfs{Upper: filepath.Join(dir, "upper")}}
	out := filepath.Join(dir, "out/f")
	cfg := Config{Sinks: []SinkConfig{{Name: "f", Type: "file", Path: out}}}
	run(t, dir, cfg, newInventory(c))
	inside := filepath.Join(merged, "var/log/app.log")
	writeFile(t, inside, "line 0\n")
	eventually(t, "the first line", func() bool { return len(lines(out)) == 1 })
	appendTo(t, inside, "line 1\n")
	eventually(t, "the second line", func() bool { return len(lines(out)) == 2 })
	if err := unix.Unmount(merged, 0); err != nil {
		t.Errorf("unmount while the file is followed: %v", err)
	} else {
		mounted = false
	}
}
