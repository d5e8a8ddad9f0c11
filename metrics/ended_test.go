package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/metrics/history"
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

// Its cgroup is gone before anybody could read it: no value is made up, what its runtime says is shown.
func TestAMissedLastSampleIsCountedAndTellsWhatTheRuntimeSays(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", func(c *Config) { c.KeepEnded = time.Minute })
	c := recordedContainer("v1")
	c.Cgroup.V1 = map[string]string{"cpuacct": "/nowhere/" + string(c.ID), "memory": "/nowhere/" + string(c.ID)}
	h.publish(c)
	_ = text(t, h.Metrics)
	c.State, c.ExitCode, c.OOMKilled = container.Exited, 137, true
	h.publish(c)
	got := series(t, h.Metrics, "container_ended_")
	if len(got) != 2 || value(t, h.Metrics, "container_ended_exit_code") != 137 || value(t, h.Metrics, "container_ended_oom_kills") != 1 {
		t.Errorf("%v", got)
	}
	if missed, kills := h.cost.missed.Value(), h.cost.oomKills.Value(); missed != 1 || kills != 1 {
		t.Errorf("%d missed, %d kills", missed, kills)
	}
	h.publish(c)
	if got := series(t, h.Metrics, "container_ended_exit_code"); len(got) != 1 || h.cost.missed.Value() != 1 {
		t.Errorf("told again: %v, %d missed", got, h.cost.missed.Value())
	}
}

func TestAContainerThatNobodySawAliveIsCountedOnceUnlessItEndedBeforeTheAgentBegan(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", func(c *Config) { c.KeepEnded = time.Minute })
	now := epoch
	h.deps.Now = func() time.Time { return now }
	ended := func(name string, at time.Time) container.Container {
		return container.Container{ID: container.ID(name), Name: name, Runtime: "docker", State: container.Exited, ExitCode: 3, Started: at.Add(-time.Second), Finished: at}
	}
	long, before := ended("long", epoch.Add(-time.Hour)), ended("before", epoch.Add(-time.Second))
	h.publish(long, before)
	if got := series(t, h.Metrics, "container_ended_exit_code{"); len(got) != 1 || h.cost.missed.Value() != 0 {
		t.Errorf("%v, %d missed", got, h.cost.missed.Value())
	}
	now = now.Add(time.Second)
	brief := ended("brief", now)
	for range 3 {
		h.publish(long, before, brief)
	}
	if got := series(t, h.Metrics, "container_ended_exit_code{"); len(got) != 2 || h.cost.missed.Value() != 1 {
		t.Errorf("%v, %d missed", got, h.cost.missed.Value())
	}
	brief.Started, brief.Finished = brief.Started.Add(time.Minute), brief.Finished.Add(time.Minute) // it ran once more
	h.publish(long, before, brief)
	if got := series(t, h.Metrics, "container_ended_exit_code{"); len(got) == 0 || h.cost.missed.Value() != 2 {
		t.Errorf("%v, %d missed", got, h.cost.missed.Value())
	}
	if got := series(t, h.Metrics, "container_ended_cpu"); len(got) != 0 {
		t.Errorf("made up: %v", got)
	}
}

// The inventory may first see a container when its process has ended: it is called alive then, and has no cgroup.
func TestAContainerThatWasSeenWithoutACgroupIsCountedAsMissedWhenItHasEnded(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*recordedHost, container.Container){
		"known": func(h *recordedHost, c container.Container) {
			c.State, c.Finished = container.Exited, epoch.Add(time.Second)
			h.publish(c)
		},
		"gone": func(h *recordedHost, c container.Container) {
			c.State = container.Exited
			h.publish()
			h.snap.Gone = []container.Tombstone{{Container: c, Removed: epoch.Add(time.Second)}}
		},
		"gone, and was never seen to run": func(h *recordedHost, c container.Container) {
			c.ID, c.State, c.Started = "briefer", container.Created, time.Time{}
			h.publish(c)
			h.sync(h.Snapshot())
			if missed := h.cost.missed.Value(); missed != 0 {
				t.Errorf("%d missed before it is gone", missed)
			}
			h.publish()
			h.snap.Gone = []container.Tombstone{{Container: c, Removed: epoch.Add(time.Second)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "v2", func(c *Config) { c.KeepEnded = time.Minute })
			h.publish()
			h.sync(h.Snapshot())
			c := container.Container{ID: "brief", Runtime: "containerd", State: container.Stopping, Created: epoch.Add(time.Second), Started: epoch.Add(time.Second)}
			for range 2 {
				h.publish(c)
				h.sync(h.Snapshot())
			}
			if missed := h.cost.missed.Value(); missed != 0 {
				t.Errorf("%d missed before it has ended", missed)
			}
			end(h, c)
			for range 2 {
				h.sync(h.Snapshot())
			}
			if missed := h.cost.missed.Value(); missed != 1 {
				t.Errorf("%d missed", missed)
			}
		})
	}
}

// A container that its runtime restarts every second has many lives between two samples of the history. Each of them is
// accounted, though only the last is on the page: they would be one series.
func TestEachLifeBetweenTwoSamplesIsAccounted(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]time.Duration{"shown": time.Minute, "not shown": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "v1", func(c *Config) { c.KeepEnded, c.History = keep, historyOn() })
			now := epoch
			h.deps.Now = func() time.Time { return now }
			c := recordedContainer("v1")
			for i := range 5 {
				c.PID, c.Started = 5000+i, now
				h.publish(c)
				h.sync(h.Snapshot())
				now = now.Add(time.Second)
			}
			h.publish()
			samples, err := h.Samples(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lives := map[string]bool{}
			for _, s := range samples {
				if !s.Read || !s.Ended || !s.Total[history.CPU].Known {
					t.Errorf("%+v", s)
				}
				lives[s.Life] = true
			}
			if len(lives) != 5 {
				t.Errorf("%d of 5 lives: %v", len(lives), lives)
			}
			if got := series(t, h.Metrics, "container_ended_cpu_usage_seconds"); len(got) != min(1, int(keep)) {
				t.Errorf("shown: %v", got)
			}
			now = now.Add(10 * time.Minute)
			h.publish(c)
			if samples, err = h.Samples(t.Context()); err != nil || len(samples) != 1 {
				t.Errorf("much later: %d samples, %v", len(samples), err)
			}
		})
	}
}

func historyOn() history.Config {
	c := history.DefaultConfig()
	c.On = true
	return c
}
