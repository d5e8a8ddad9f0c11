package metrics

import (
	"compress/gzip"
	"context"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

var update = flag.Bool("update", false, "write the pages below testdata instead of comparing with them")

func readAll(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestThePageOfEachLayout compares the whole page of each recorded host, without the agent's own series, with the one
// beside it. Look at the difference before you run it with -update.
func TestThePageOfEachLayout(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"v1", "v2", "hybrid"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, layout, nil)
			h.publish(recordedContainer(layout))
			var got strings.Builder
			for line := range strings.Lines(text(t, h.Metrics)) {
				if !strings.Contains(line, "fairlead_") {
					got.WriteString(line)
				}
			}
			golden := filepath.Join("testdata", layout+".page.txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFormatAndCodingFollowTheRequest(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	h.publish(recordedContainer("v2"))
	plain := scrape(t, h.Metrics)
	if got := plain.Header.Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Error(got)
	}
	res := scrape(t, h.Metrics, "Accept: application/openmetrics-text; version=1.0.0", "Accept-Encoding: gzip")
	if ct, ce := res.Header.Get("Content-Type"), res.Header.Get("Content-Encoding"); ct != "application/openmetrics-text; version=1.0.0; charset=utf-8" || ce != "gzip" {
		t.Errorf("%s, %s", ct, ce)
	}
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(z)
	if err != nil || !strings.HasSuffix(string(page), "\n# EOF\n") || !strings.Contains(string(page), "# TYPE container_cpu_usage_seconds counter\n") {
		t.Errorf("%v\n%s", err, page)
	}
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestAContainerIsSeenInTheNextScrapeAndAbsentOnceGone(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	if got := series(t, h.Metrics, "container_"); len(got) != 0 {
		t.Errorf("before any snapshot: %v", got)
	}
	h.publish(recordedContainer("v2"))
	if got := len(series(t, h.Metrics, "container_")); got < 30 {
		t.Errorf("born: %d series", got)
	}
	if h.kept() == 0 {
		t.Error("no file is kept open")
	}
	stopped := recordedContainer("v2")
	stopped.State = container.Exited
	h.publish(stopped)
	if got := series(t, h.Metrics, "container_"); len(got) != 0 {
		t.Errorf("gone: %v", got)
	}
	if used := h.left.Holder("metrics", 100).Used(); used != 0 {
		t.Errorf("%d descriptors are still held", used)
	}
}

func TestAnOlderSnapshotDoesNotBringBackWhatIsGone(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	h.publish(recordedContainer("v2"))
	older := h.Snapshot()
	h.publish()
	text(t, h.Metrics)
	h.sync(older)
	h.Metrics.mu.Lock()
	defer h.Metrics.mu.Unlock()
	if n := len(h.view.slots); n != 0 {
		t.Errorf("%d containers", n)
	}
}

func TestACgroupRemovedBeforeTheInventoryKnowsIsCountedNotShownAsZero(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	h.deps.Descriptors = h.left.Holder("none", 0) // files of a plain file system outlive their directory when kept open
	h.publish(recordedContainer("v2"))
	text(t, h.Metrics)
	if err := os.RemoveAll(filepath.Join(h.dir, "sys/fs/cgroup", recordedContainer("v2").Cgroup.Unified)); err != nil {
		t.Fatal(err)
	}
	for name := range series(t, h.Metrics, "container_") {
		if !strings.HasPrefix(name, "container_network_") { // its links may live longer than its cgroup
			t.Errorf("%s is shown", name)
		}
	}
	if h.cost.gone.Value() != 1 || h.log.Len() == 0 || strings.Contains(h.log.String(), "part of a cgroup") {
		t.Errorf("counted %d, log %s", h.cost.gone.Value(), h.log)
	}
}

func TestARestartedContainerLeavesNoSeriesAndNoDescriptorBehind(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", func(c *Config) { c.KeepEnded = time.Minute })
	c := recordedContainer("v1")
	var want float64
	for i := range 100 {
		c.PID, c.Started = 5000+i, epoch.Add(time.Duration(i)*time.Second)
		h.publish(c)
		if got := len(series(t, h.Metrics, "container_memory_usage_bytes")); got != 1 {
			t.Fatalf("restart %d: %d series", i, got)
		}
		if got := len(series(t, h.Metrics, "container_ended_cpu_usage_seconds")); got != min(i, 1) {
			t.Fatalf("restart %d: %d series of lives that ended", i, got)
		}
		if i == 0 {
			want = h.kept()
		}
	}
	if got, used := h.kept(), h.left.Holder("metrics", 100).Used(); got != want || used != int(want) {
		t.Errorf("%v descriptors kept, %d in the budget, want %v", got, used, want)
	}
}

func TestGarbageIsCountedAtEachScrapeAndSaidOnceUntilItEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	h.publish(recordedContainer("v2"))
	file := filepath.Join("sys/fs/cgroup", recordedContainer("v2").Cgroup.Unified, "memory.current")
	h.write(t, file, "many\n")
	for range 3 {
		if got := series(t, h.Metrics, "container_memory_usage_bytes"); len(got) != 0 {
			t.Errorf("shown: %v", got)
		}
	}
	if got := h.cost.failed("cgroup").Value(); got != 3 {
		t.Errorf("counted %d", got)
	}
	if said := h.log.String(); strings.Count(said, "WARN") != 1 || !strings.Contains(said, "memory.current") || !strings.Contains(said, "container="+recordedID) {
		t.Errorf("said: %s", said)
	}
	h.write(t, file, "5\n")
	if got := series(t, h.Metrics, "container_memory_usage_bytes"); len(got) != 1 || !strings.Contains(h.log.String(), "can be read again") {
		t.Errorf("after its end: %v, said: %s", got, h.log)
	}
}

// A FIFO that nobody writes to hangs whoever opens it, as a dead file system does.
func TestAReadThatHangsIsLeftOutAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", func(c *Config) { c.Timeout = 500 * time.Millisecond })
	cs := h.crowd(t, "v2", 3)
	h.publish(cs...)
	fifo := filepath.Join(h.dir, "sys/fs/cgroup", cs[1].Cgroup.Unified, "memory.current")
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		began := time.Now()
		if got := series(t, h.Metrics, "container_memory_usage_bytes"); len(got) != 2 {
			t.Errorf("scrape %d shows %v", i, got)
		}
		// Only the first waits for it, and no longer than it may; the second does not send another reader after it.
		if took := time.Since(began); took > 10*time.Second || (i == 1 && took >= h.cfg.Timeout) {
			t.Errorf("scrape %d took %s", i, took)
		}
		if got := h.cost.leftOut.Value(); got != uint64(i+1) {
			t.Errorf("after scrape %d: %d left out", i, got)
		}
	}
	// Taking it off the list does not wait for it either.
	hung := h.view.slots[1].life
	h.publish(cs[0], cs[2])
	if got := series(t, h.Metrics, "container_memory_usage_bytes"); len(got) != 2 {
		t.Errorf("without it: %v", got)
	}
	w, err := os.OpenFile(fifo, os.O_RDWR, 0) // lets the reader's open return; its read then answers "illegal seek"
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	hung.busy.Lock() // once the reader is back
	defer hung.busy.Unlock()
	if got, used := h.kept(), h.left.Holder("metrics", 100).Used(); got != 2*15 || used != 2*15 {
		t.Errorf("%v descriptors kept, %d in the budget: it did not give its own back", got, used)
	}
	h.publish(cs...)
	if got := series(t, h.Metrics, "container_cpu_usage_seconds_total"); len(got) != 3 {
		t.Errorf("on the list again: %v", got)
	}
}

func TestThrottlingIsNotShownWithoutAQuotaNorASwapLimitWithoutSwapAccounting(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.write(t, "sys/fs/cgroup/cpu,cpuacct/docker/"+recordedID+"/cpu.cfs_quota_us", "-1\n")
	if err := os.Remove(filepath.Join(h.dir, "sys/fs/cgroup/memory/docker", recordedID, "memory.memsw.limit_in_bytes")); err != nil {
		t.Fatal(err)
	}
	h.publish(recordedContainer("v1"))
	for _, prefix := range []string{"container_cpu_cfs_", "container_spec_cpu_quota", "container_spec_memory_swap_limit_bytes"} {
		if got := series(t, h.Metrics, prefix); len(got) != 0 {
			t.Error(got)
		}
	}
}

func TestWithoutLinkStatisticsTheRestOfThePageIsThere(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.dial = func(time.Time) (io.ReadWriteCloser, error) { return nil, syscall.EMFILE }
	h.publish(recordedContainer("v1"))
	got := series(t, h.Metrics, "container_")
	for name := range got {
		if strings.HasPrefix(name, "container_network_") {
			t.Error(name)
		}
	}
	if len(got) < 25 || h.cost.failed("links").Value() != 1 {
		t.Errorf("%d series, counted %d", len(got), h.cost.failed("links").Value())
	}
}

func TestManyScrapersAtOnceGetWholePagesWhileContainersComeAndGo(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	cs := h.crowd(t, "v2", 5)
	h.dial = kernel(nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				if i == 0 {
					h.publish(cs[:j%6]...)
					continue
				}
				page := readAll(t, scrape(t, h.Metrics, "Accept: application/openmetrics-text"))
				if n := strings.Count(page, "\ncontainer_memory_rss{"); !strings.HasSuffix(page, "\n# EOF\n") || n != strings.Count(page, "\ncontainer_threads{") {
					t.Errorf("%s", page)
				}
			}
		})
	}
	all.Wait()
}

func TestRunKeepsFilesOpenBetweenScrapesAndClosesThemAtItsEnd(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.publish(recordedContainer("v1"))
	text(t, h.Metrics)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if used := h.left.Holder("metrics", 100).Used(); used != 0 {
		t.Errorf("%d descriptors are held after Run", used)
	}
	if got := series(t, h.Metrics, "container_cpu_usage_seconds_total"); len(got) != 1 {
		t.Errorf("a scrape after Run: %v", got)
	}
}

func TestWithoutCgroupMountsTheAgentsOwnCountersAreStillThere(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v1", nil)
	h.write(t, "proc/self/mountinfo", "")
	h.stats.Counter("fairlead_overlay_attachments_total", `How "many".`, stat.Label{Name: "network", Value: `b"lue`}).Add(7)
	h.publish(recordedContainer("v1"))
	for range 2 {
		if got := text(t, h.Metrics); !strings.Contains(got, `fairlead_overlay_attachments_total{network="b\"lue"} 7`) || !strings.Contains(got, "machine_cpu_cores{") {
			t.Errorf("page: %s", got)
		}
	}
	if strings.Count(h.log.String(), "cgroup hierarchies not found") != 1 || h.cost.failed("mounts").Value() != 2 {
		t.Errorf("log: %s", h.log)
	}
}

func TestUsageIsReadAtTheMomentItIsAsked(t *testing.T) {
	t.Parallel()
	h := newHost(t, "v2", nil)
	h.publish(recordedContainer("v2"))
	for _, current := range []uint64{52428800, 62428800} {
		h.write(t, filepath.Join("sys/fs/cgroup", recordedContainer("v2").Cgroup.Unified, "memory.current"), strconv.FormatUint(current, 10)+"\n")
		got, err := h.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []Usage{{
			Runtime: "cri", ID: recordedID, Name: "nginx", Cgroup: recordedContainer("v2").Cgroup.Unified, At: epoch,
			CPUSeconds: new(9.876543), CPULimit: new(0.2), MemoryBytes: new(current - 12582912), MemoryLimitBytes: new(uint64(134217728)), Threads: new(uint64(5)),
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, d := range []time.Duration{0, -time.Second, time.Hour} {
		_, err := New(Config{Timeout: d}, Deps{})
		if err == nil || !strings.HasPrefix(err.Error(), "metrics.timeout: ") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// A page costs no allocation beyond its body; a scrape costs a handful, however many containers there are.
func TestAScrapeAllocatesNothingPerContainer(t *testing.T) {
	count := func(n int) float64 {
		h := newHost(t, "v1", nil)
		h.dial = kernel(nil)
		h.publish(h.crowd(t, "v1", n)...)
		h.Metrics.scrape(textPlain).recycle()
		return testing.AllocsPerRun(10, func() { h.Metrics.scrape(textGzip | textPlain).recycle() })
	}
	few, many := count(2), count(42)
	t.Logf("%v allocations a scrape of 2 containers, %v of 42", few, many)
	if perContainer := (many - few) / 40; perContainer > 0.2 {
		t.Errorf("%v allocations per container", perContainer)
	}
	if few > 250 {
		t.Errorf("%v allocations a scrape", few)
	}
}

func TestEveryMetricIsNamedOnceAndExplained(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range Table() {
		if seen[m.Name] {
			t.Errorf("%s is listed twice", m.Name)
		}
		seen[m.Name] = true
		if !strings.HasPrefix(m.Name, "container_") && !strings.HasPrefix(m.Name, "machine_") && !strings.HasPrefix(m.Name, "fairlead_advice_") || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: %q", m.Name, m.Help)
		}
		if total := strings.HasSuffix(m.Name, "_total"); total != (m.Type == stat.TypeCounter) && m.Name != "container_memory_failcnt" && m.Name != "container_hugetlb_failcnt" && m.Group != "sockets" && m.Name != "container_fs_inodes_total" { // names and types are cAdvisor's
			t.Errorf("%s is a %s", m.Name, m.Type)
		}
		if bytes := strings.HasSuffix(strings.TrimSuffix(m.Name, "_total"), "_bytes"); bytes && m.Unit != "bytes" {
			t.Errorf("%s has unit %q", m.Name, m.Unit)
		}
	}
}

func BenchmarkEncode500(b *testing.B) {
	h := newHost(b, "v1", nil)
	h.publish(h.crowd(b, "v1", 500)...)
	p := h.gather()
	b.ReportAllocs()
	for b.Loop() {
		page := h.Metrics.write(p, expo.Text, expo.Gzip)
		b.SetBytes(int64(len(page.b)))
		h.spare.put(page)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/500, "us/container")
}

func BenchmarkScrape500(b *testing.B) {
	for name, want := range map[string]flavour{"text": textPlain, "gzip": textGzip} {
		b.Run(name, func(b *testing.B) {
			h := newHost(b, "v1", nil)
			h.dial = kernel(nil)
			h.publish(h.crowd(b, "v1", 500)...)
			b.ReportAllocs()
			for b.Loop() {
				h.Metrics.scrape(want).recycle()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/500, "us/container")
		})
	}
}

var _ Inventory = (*container.Inventory)(nil)
