package metrics

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fairlead-dev/fairlead/agent/container"
)

// unpacked gives the page of an answer, whatever its coding.
func unpacked(t *testing.T, res *http.Response, want string) string {
	t.Helper()
	if got := res.Header.Get("Content-Encoding"); got != want {
		t.Fatalf("coding %q, want %q", got, want)
	}
	var r io.Reader = res.Body
	switch want {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	case "zstd":
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// withoutCosts cuts the agent's own, which differ from one scrape to the next.
func withoutCosts(page string) string {
	before, _, _ := strings.Cut(page, "# HELP fairlead_")
	return before
}

func TestEachCodingGivesTheSamePage(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	cs := h.crowd(t, "v1", 12)
	cs[3].Name, cs[4].Image, cs[5].Name = `we"b\`, "bild/größe:\n\xff", strings.Repeat("long", 12_000)
	h.publish(cs...)
	for _, accept := range []string{"text/plain", "application/openmetrics-text; version=1.0.0"} {
		want := withoutCosts(unpacked(t, scrape(t, h.Metrics, "Accept: "+accept), ""))
		for range 2 {
			for _, coding := range []string{"gzip", "zstd"} {
				if got := withoutCosts(unpacked(t, scrape(t, h.Metrics, "Accept: "+accept, "Accept-Encoding: "+coding), coding)); got != want {
					t.Errorf("%s, %s: %d bytes, plain it is %d", accept, coding, len(got), len(want))
				}
			}
		}
		for _, label := range []string{`name="we\"b\\"`, `image="bild/größe:\n` + "\uFFFD" + `"`} {
			if !strings.Contains(want, label) {
				t.Errorf("no %s on the page", label)
			}
		}
	}
}

func TestOpenMetricsTellsSinceWhenEachCounterCounts(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		h := newHost(t, "v1", func(c *Config) { c.Created = on })
		c := recordedContainer("v1")
		c.Started = time.UnixMilli(1_700_000_000_250)
		h.publish(c)
		page := unpacked(t, scrape(t, h.Metrics, "Accept: application/openmetrics-text; version=1.0.0"), "")
		created := 0
		var before string
		for line := range strings.Lines(page) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "{")
			base, is := strings.CutSuffix(name, "_created")
			if is && strings.HasPrefix(name, "container_") {
				created++
				labels, at, _ := strings.Cut(value, "} ")
				if at != "1700000000.25" || !strings.HasPrefix(before, base+"_total{"+labels+"} ") {
					t.Errorf("%s after %s", line, before)
				}
			}
			before = line
		}
		if (created > 10) != on || strings.Contains(text(t, h.Metrics), "_created{") {
			t.Errorf("created: %v: %d creation times, and some in the text format: %v", on, created, strings.Contains(text(t, h.Metrics), "_created{"))
		}
	}
}

// The kernel's number is shown as it is: a scraper takes what is less than before for a new beginning.
func TestACounterThatGoesBackwardsIsShownAsItIs(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.publish(recordedContainer("v1"))
	file := "sys/fs/cgroup/cpu,cpuacct" + recordedContainer("v1").Cgroup.V1["cpuacct"] + "/cpuacct.usage"
	for _, ns := range []string{"9000000000", "1000000000", "18446744073709551615", "0"} {
		h.write(t, file, ns+"\n")
		if got := value(t, h.Metrics, "container_cpu_usage_seconds_total"); fmt.Sprintf("%.0f", got*1e9) != ns && got < 1e10 {
			t.Errorf("%v s of %s ns", got, ns)
		}
	}
	if h.log.Len() > 400 { // hierarchies found
		t.Error(h.log)
	}
}

func TestTenThousandLabelValuesStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	const n, most = 10_000, 50_000
	h := newHost(t, "v1", func(c *Config) {
		c.Series, c.Exclude, c.Timeout = most, []string{"network"}, time.Minute // a slow machine leaves none out
	})
	h.deps.Descriptors = h.left.Holder("none", 0)
	first := recordedContainer("v1")
	cs := make([]container.Container, n)
	for i := range cs {
		cs[i] = container.Container{ID: container.ID(fmt.Sprint("id", i)), Name: fmt.Sprint("name ", i), Image: fmt.Sprint("image:", i), State: container.Running}
		// As many names of one directory: what differs is the label.
		cs[i].Cgroup.V1 = map[string]string{"pids": fmt.Sprintf("/x%d/..%s", i, first.Cgroup.V1["pids"])}
	}
	h.publish(cs...)
	shown := strings.Count(unpacked(t, scrape(t, h.Metrics, "Accept-Encoding: gzip"), "gzip"), "\ncontainer_")
	// Each has as many series as the first.
	if all := shown + int(h.cost.dropped.Value()); shown != most || all%n != 0 || all == shown {
		t.Errorf("%d series and %d dropped; the bound is %d", shown, h.cost.dropped.Value(), most)
	}
}

func TestTheLastSnapshotIsMeasuredWhileTheRuntimeIsSilent(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.publish(recordedContainer("v1")) // and nothing after it: nobody tells anything new
	file := "sys/fs/cgroup/cpu,cpuacct" + recordedContainer("v1").Cgroup.V1["cpuacct"] + "/cpuacct.usage"
	for i := range 3 {
		h.write(t, file, fmt.Sprintf("%d000000000\n", i))
		if got := value(t, h.Metrics, "container_cpu_usage_seconds_total"); got != float64(i) {
			t.Errorf("%v s, want %d", got, i)
		}
	}
}

func TestAUsedUpDescriptorBudgetIsSaidOnceAndItsEndToo(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.deps.Descriptors = h.left.Holder("few", 0)
	h.publish(recordedContainer("v1"))
	for range 3 {
		if got := series(t, h.Metrics, "container_memory_usage_bytes"); len(got) != 1 {
			t.Errorf("%v", got)
		}
	}
	if n := strings.Count(h.log.String(), "descriptor budget is used up"); n != 1 || h.opened() == 0 || h.kept() != 0 {
		t.Errorf("said %d times, %v files opened, %v kept", n, h.opened(), h.kept())
	}
	h.left.Holder("few", 100)
	for range 2 {
		text(t, h.Metrics)
	}
	if n := strings.Count(h.log.String(), "budget suffices again"); n != 1 || h.kept() == 0 {
		t.Errorf("said %d times, %v kept", n, h.kept())
	}
}

func TestGroupsOnRequestAreReadOnlyThen(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		h := newHost(t, "v1", func(c *Config) {
			if on {
				c.Also = []string{"numa"}
			}
		})
		c := recordedContainer("v1")
		h.write(t, "sys/fs/cgroup/memory"+c.Cgroup.V1["memory"]+"/memory.numa_stat", "total=7 N0=7\nanon=5 N0=5\nhierarchical_anon=6 N0=6\n")
		h.publish(c)
		got := series(t, h.Metrics, "container_memory_numa_pages")
		if want := map[bool]int{true: 2}[on]; len(got) != want {
			t.Errorf("also numa: %v: %v", on, got)
		}
		for id, v := range got {
			if want := map[bool]string{true: "6", false: "5"}[strings.Contains(id, `scope="hierarchy"`)]; v != want || !strings.Contains(id, `node="0"`) || !strings.Contains(id, `type="anon"`) {
				t.Errorf("%s %s", id, v)
			}
		}
	}
	if err := (Config{Also: []string{"cpu"}}).Validate(); err == nil || !strings.Contains(err.Error(), `metrics.also[0]: "cpu" is not one of numa, sockets, disk`) {
		t.Error(err)
	}
}
