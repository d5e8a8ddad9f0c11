package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
)

func TestALastSampleStaysForItsTimeUnderNamesOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", func(c *Config) { c.KeepEnded = time.Minute })
	now := epoch
	h.deps.Now = func() time.Time { return now }
	c := recordedContainer("v1")
	h.publish(c)
	if got := series(t, h.Metrics, "container_ended_"); len(got) != 0 {
		t.Fatalf("while it lives: %v", got)
	}
	c.State, c.ExitCode = container.Exited, 137
	h.publish(c)
	for name, want := range map[string]float64{
		"container_ended_cpu_usage_seconds": 12.345678901, "container_ended_oom_kills": 5, "container_ended_exit_code": 137,
		"container_ended_memory_max_usage_bytes": 134217728, "container_ended_time_seconds": float64(epoch.Unix()),
	} {
		if got := value(t, h.Metrics, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for name := range series(t, h.Metrics, "container_") {
		if !strings.HasPrefix(name, "container_ended_") {
			t.Errorf("%s is shown of a container that ended", name)
		}
	}
	if got := h.cost.oomKills.Value(); got != 5 {
		t.Errorf("%d kills counted", got)
	}
	now = epoch.Add(61 * time.Second)
	if got := series(t, h.Metrics, "container_ended_"); len(got) != 0 {
		t.Errorf("after its time: %v", got)
	}
}
