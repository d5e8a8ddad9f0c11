//go:build kernel

package volumes

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestVolumesOfRealRuntimesAreFound(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *daemons.APIDaemon{
		"docker": func(t testing.TB) *daemons.APIDaemon { return hosttest.Dockerd(t, nil) },
		"podman": func(t testing.TB) *daemons.APIDaemon { return hosttest.PodmanAPI(t) },
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			bind := hosttest.Dir(t)
			if out, err := d.Client(t.Context(), "run", "--network", "none", "--cgroup-parent", d.Cgroup, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--label", "fairlead.backup=daily", "-v", "data:/data", "-v", bind+":/bound",
				"bb", "sh", "-c", "echo inside >/data/file; mkfifo /data/fifo; echo bound >/bound/file"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			inventory := follow(t, d.Seen(d.Socket))
			want := map[string]string{name + "/data": "file", bind: "file"}
			found := map[string]Volume{}
			for deadline := time.Now().Add(hosttest.Bound(20 * time.Second)); len(found) < len(want) && time.Now().Before(deadline); {
				for _, v := range Discover(inventory.Snapshot(), Config{}) {
					if want[v.Name] != "" && v.Backup == "daily" {
						found[v.Name] = v
					}
				}
				for range inventory.Follow(deadlined(t, 200*time.Millisecond)) {
					break
				}
			}
			if len(found) != len(want) {
				t.Fatalf("found %+v, want %v", found, want)
			}
			for _, v := range found {
				if _, err := os.Stat(v.Path + "/file"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func deadlined(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func follow(t *testing.T, socket string) *container.Inventory {
	t.Helper()
	v, err := container.New(container.Config{Run: t.TempDir(), Sockets: []string{socket}},
		container.Deps{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Stat: &stat.Registry{}, Host: host.Root{Proc: "/proc", Sys: "/sys"}})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	t.Cleanup(func() { cancel(); check(t, <-ended) })
	return v
}
