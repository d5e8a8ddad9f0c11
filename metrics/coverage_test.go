package metrics

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/host"
)

func TestTheRootCgroupAndAPodsOwnAreShownBesideTheirContainers(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", func(c *Config) { c.Aggregates = true })
	c := recordedContainer("v2")
	pod := "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7e1f.slice/"
	h.write(t, pod+"memory.current", "999\n")
	h.write(t, "sys/fs/cgroup/cpu.stat", "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\n")
	h.publish(c)
	page := text(t, h.Metrics)
	for _, want := range []string{
		`container_memory_usage_bytes{container="",namespace="shop",pod="web-0",id="/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7e1f.slice"} 999`,
		`container_cpu_usage_seconds_total{id="/",cpu="total"} 5`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("missing %s", want)
		}
	}
	total := value(t, h.Metrics, "machine_memory_bytes")
	if want := `container_spec_memory_limit_bytes{id="/"} ` + strconv.FormatFloat(total, 'f', -1, 64); !strings.Contains(page, want+"\n") {
		t.Errorf("the machine's memory is not the root's limit: no %s", want)
	}
	if all, err := h.Usage(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("people are shown %+v, %v", all, err)
	}
}

func TestOnlyAPodsOwnCgroupIsItsParent(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"/kubepods/burstable/pod1-2-3/abc":         "/kubepods/burstable/pod1-2-3",
		"/kubepods.slice/x-pod1_2_3.slice/c.scope": "/kubepods.slice/x-pod1_2_3.slice",
		"/k8s.io/abc":           "",
		"/":                     "",
		"/kubepods/pod9-9/abcd": "",
	} {
		got, _ := parent(host.Membership{Unified: at}, "1-2-3")
		if got.Unified != want {
			t.Errorf("%s: %q, want %q", at, got.Unified, want)
		}
	}
	if _, ok := parent(host.Membership{Unified: "/pod/abc"}, ""); ok {
		t.Error("without a uid every parent named pod was taken")
	}
}

func TestExcludedGroupsAreNeitherShownNorRead(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", func(c *Config) { c.Exclude = []string{"io", "hugetlb", "network", "machine", "life"} })
	h.publish(recordedContainer("v1"))
	got := series(t, h.Metrics, "")
	for name := range got {
		for _, m := range Table() {
			if strings.HasPrefix(name, m.Name+"{") && slices.Contains(h.cfg.Exclude, m.Group) {
				t.Errorf("%s of group %s is shown", name, m.Group)
			}
		}
	}
	if kept := h.kept(); kept == 0 {
		t.Error("nothing is read")
	}
	whole := newHost(t, "v1", nil)
	whole.publish(recordedContainer("v1"))
	if less, all := len(got), len(series(t, whole.Metrics, "")); less >= all || h.kept() >= whole.kept() {
		t.Errorf("%d series and %v files, %d and %v without an exclusion", less, h.kept(), all, whole.kept())
	}
}

func TestHealthIsWhatTheRuntimeSays(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	for health, want := range map[string]float64{"": -1, "healthy": 1, "starting": 0, "unhealthy": 0} {
		c := recordedContainer("v1")
		c.Health, c.Restarts = health, 3
		h.publish(c)
		if got := value(t, h.Metrics, "container_health_state"); got != want {
			t.Errorf("%q: %v, want %v", health, got, want)
		}
		if got := value(t, h.Metrics, "container_restarts_total"); got != 3 {
			t.Errorf("%v restarts", got)
		}
	}
}

func TestLabelsChooseContainers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		only, skip, labels map[string]string
		want               bool
	}{
		"nothing asked":       {want: true},
		"has it":              {only: map[string]string{"team": "shop"}, labels: map[string]string{"team": "shop"}, want: true},
		"another value":       {only: map[string]string{"team": "shop"}, labels: map[string]string{"team": "bank"}},
		"any value":           {only: map[string]string{"team": ""}, labels: map[string]string{"team": "bank"}, want: true},
		"one of two":          {only: map[string]string{"team": "", "tier": "web"}, labels: map[string]string{"team": "bank"}},
		"to be skipped":       {skip: map[string]string{"noise": ""}, labels: map[string]string{"noise": "yes"}},
		"not to be skipped":   {skip: map[string]string{"noise": "yes"}, labels: map[string]string{"noise": "no"}, want: true},
		"skipped though only": {only: map[string]string{"a": ""}, skip: map[string]string{"b": ""}, labels: map[string]string{"a": "", "b": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "v2", func(cfg *Config) { cfg.Only, cfg.Skip = c.only, c.skip })
			con := recordedContainer("v2")
			con.Labels = c.labels
			h.publish(con)
			if got := len(series(t, h.Metrics, "container_last_seen")) == 1; got != c.want {
				t.Errorf("shown: %v", got)
			}
		})
	}
}

func TestWhatIsBeyondTheSeriesBudgetIsDroppedAndCountedExactly(t *testing.T) {
	t.Parallel()
	count := func(change func(*Config)) (shown, dropped int) {
		h := newHost(t, "v1", change)
		h.publish(recordedContainer("v1"))
		shown = len(series(t, h.Metrics, "container_"))
		return shown, int(h.cost.dropped.Value())
	}
	all, dropped := count(nil)
	if dropped != 0 || all < 60 {
		t.Fatalf("%d series, %d dropped without a reason", all, dropped)
	}
	for name, change := range map[string]func(*Config){
		"of one container": func(c *Config) { c.SeriesPerContainer = 10 },
		"of all":           func(c *Config) { c.Series = 10 },
	} {
		if shown, dropped := count(change); shown != 10 || dropped != all-10 {
			t.Errorf("%s: %d shown, %d dropped of %d", name, shown, dropped, all)
		}
	}
}

func TestTheConfigurationNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := Config{Timeout: 1, Exclude: []string{"cpu", "gpu"}, Series: -1, SeriesPerContainer: -2}.Validate()
	want := `metrics.exclude[1]: "gpu" is not one of ` + strings.Join(Groups(), ", ") + `
metrics.series: -1 is negative; 0 is no bound
metrics.series_per_container: -2 is negative; 0 is no bound
metrics.timeout: 1ns is not between 10ms and 1m0s`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestLatencyIsShownWhereItIsPromised(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	c := recordedContainer("v2")
	dir := "sys/fs/cgroup" + c.Cgroup.Unified + "/"
	h.write(t, dir+"io.stat", "8:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0 depth=max avg_lat=1500 win=100\n")
	h.write(t, dir+"io.latency", "")
	h.publish(c)
	if got := series(t, h.Metrics, "container_spec_fs_io_latency"); len(got) != 0 {
		t.Errorf("without a promise: %v", got)
	}
	h.write(t, dir+"io.latency", "8:0 target=20000\n")
	for name, want := range map[string]float64{"container_fs_io_latency_seconds": 0.0015, "container_spec_fs_io_latency_seconds": 0.02} {
		if got := value(t, h.Metrics, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A disk is taken away and another gets its number; the name of the first is given to a third. Were the old name kept, two
// disks would be one series.
func TestADiskIsNamedAsItIsNow(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	h.write(t, filepath.Join("sys/fs/cgroup", recordedContainer("v2").Cgroup.Unified, "io.stat"), "259:1 rbytes=1 wbytes=1 rios=1 wios=1\n259:2 rbytes=2 wbytes=2 rios=2 wios=2\n")
	h.publish(recordedContainer("v2"))
	disk := func(number, name string) {
		h.write(t, "sys/devices/"+name+"/uevent", "MAJOR=259\nDEVNAME="+name+"\n")
		at := filepath.Join(h.dir, "sys/dev/block", number)
		_ = os.Remove(at) // the first time there is none
		if err := os.Symlink("../../devices/"+name, at); err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, "sys/dev/block/.keep", "")
	for _, names := range [][2]string{{"nvme1n1", "nvme2n1"}, {"nvme3n1", "nvme1n1"}} {
		disk("259:1", names[0])
		disk("259:2", names[1])
		got := series(t, h.Metrics, "container_fs_reads_bytes_total")
		for i, name := range names {
			found := false
			for series, v := range got {
				found = found || strings.Contains(series, `device="/dev/`+name+`"`) && v == strconv.Itoa(i+1)
			}
			if !found || len(got) != 2 {
				t.Errorf("%s: %v", name, got)
			}
		}
	}
}
