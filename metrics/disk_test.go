package metrics

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// A layer of many files, and one on a file system that never answers, are the background's affair: a scrape that comes
// before it is through has everything else.
func TestLayersAndVolumesAreEstimatedBesideTheScrapes(t *testing.T) {
	t.Parallel()
	upper, data := t.TempDir(), t.TempDir()
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(upper, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(data, "x"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, "v1", func(c *Config) { c.Also = []string{"disk"} })
	c := recordedContainer("v1")
	c.Rootfs.Upper = upper
	c.Mounts = []container.Mount{{Type: "volume", Name: "data", Source: data, Destination: "/data"}, {Type: "bind", Source: "/", Destination: "/host"}}
	h.publish(c)
	if got := series(t, h.Metrics, "container_fs_usage"); len(got) != 0 {
		t.Errorf("before anybody walked: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var part sync.WaitGroup
	part.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer part.Wait()
	defer cancel()
	for deadline := time.Now().Add(hosttest.Bound(20 * time.Second)); len(series(t, h.Metrics, "container_volume_usage_bytes"))+len(series(t, h.Metrics, "container_fs_usage_bytes")) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no estimate")
		}
		if len(series(t, h.Metrics, "container_memory_usage_bytes")) != 1 {
			t.Fatal("the rest of the page is not there")
		}
	}
	if got := value(t, h.Metrics, "container_fs_usage_inodes"); got != 3001 {
		t.Errorf("%v files in the layer", got)
	}
	for id, v := range series(t, h.Metrics, "container_volume_usage_bytes") {
		var n int
		if _, err := fmt.Sscan(v, &n); err != nil || n < 1<<20 || n > 2<<20 || !strings.Contains(id, `destination="/data"`) {
			t.Errorf("%s %s", id, v)
		}
	}
	if got := value(t, h.Metrics, "container_fs_usage_age_seconds"); got != 0 {
		t.Errorf("%v seconds old by a clock that stands still", got)
	}
}
