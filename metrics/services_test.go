package metrics

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestServicesAreMeasuredOnRequestAsSoonAsTheyAreThere(t *testing.T) {
	t.Parallel()
	for layout, file := range map[string]string{"v1": "sys/fs/cgroup/memory/system.slice/%/memory.usage_in_bytes", "v2": "sys/fs/cgroup/system.slice/%/memory.current"} {
		h := newHost(t, layout, func(c *Config) { c.Services = []string{"web*.service", "getty@*.service"} })
		h.publish(recordedContainer(layout))
		shown := func() []string {
			var out []string
			for name := range series(t, h.Metrics, `container_memory_usage_bytes{id="/system.slice/`) {
				out = append(out, strings.TrimSuffix(strings.TrimPrefix(name, `container_memory_usage_bytes{id="/system.slice/`), `"}`))
			}
			slices.Sort(out)
			return out
		}
		if got := shown(); len(got) != 0 {
			t.Errorf("%s: before there are any: %v", layout, got)
		}
		for _, unit := range []string{"web.service", "web2.service", "db.service", "system-getty.slice/getty@tty1.service", "docker-1.scope"} {
			h.write(t, strings.ReplaceAll(file, "%", unit), "4096\n")
		}
		if got, want := shown(), []string{"system-getty.slice/getty@tty1.service", "web.service", "web2.service"}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", layout, got, want)
		}
		if all, err := h.Usage(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("%s: people are shown %+v, %v", layout, all, err)
		}
		before := h.kept()
		if err := os.RemoveAll(filepath.Dir(filepath.Join(h.dir, strings.ReplaceAll(file, "%", "web.service")))); err != nil {
			t.Fatal(err)
		}
		if got := shown(); slices.Contains(got, "web.service") || len(got) != 2 || h.kept() >= before || h.cost.missed.Value() != 0 {
			t.Errorf("%s: after one stopped: %v, %v descriptors of %v, %d missed", layout, got, h.kept(), before, h.cost.missed.Value())
		}
	}
}

func TestAServiceThatIsAContainerIsMeasuredOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", func(c *Config) { c.Services = []string{"*.service"} })
	h.write(t, "sys/fs/cgroup/system.slice/web.service/memory.current", "4096\n")
	h.write(t, "sys/fs/cgroup/system.slice/db.service/memory.current", "4096\n")
	c := recordedContainer("v2")
	c.Cgroup.Unified = "/system.slice/web.service"
	h.publish(c)
	_ = text(t, h.Metrics) // services are looked for once the hierarchies are found
	if got := series(t, h.Metrics, "container_memory_usage_bytes"); len(got) != 2 {
		t.Errorf("%v", got)
	}
}
