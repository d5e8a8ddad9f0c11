//go:build kernel

package metrics

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func measuring(t *testing.T, c container.Container, also ...string) (*Metrics, *inventory) {
	t.Helper()
	inv := &inventory{more: make(chan struct{})}
	cfg := DefaultConfig()
	cfg.Aggregates, cfg.KeepEnded, cfg.Also = false, time.Minute, also
	m, err := New(cfg, Deps{
		Inventory: inv, Root: host.DefaultRoot(), Stats: new(stat.Registry), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Descriptors: host.NewDescriptors(1000).Holder("metrics", 100),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.closeAll)
	inv.publish(c)
	return m, inv
}

func about(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*want {
		t.Errorf("%s: scraped %v, true %v, off by %.2f %%", what, got, want, 100*(got-want)/want)
	}
}

// within allows the tolerance on both sides of what lies between low and high.
func within(t *testing.T, what string, got, low, high, tolerance float64) {
	t.Helper()
	if got < low*(1-tolerance) || got > high*(1+tolerance) {
		t.Errorf("%s: scraped %v, true between %v and %v", what, got, low, high)
	}
}

func TestWhatAProcessUsedIsInTheVeryNextScrape(t *testing.T) {
	g := newCgroup(t, "truth")
	g.set(t, "cpu", "cpu.cfs_quota_us 150000", "cpu.max 150000 100000")
	g.set(t, "cpu", "cpu.shares 2597", "cpu.weight 100")
	g.set(t, "memory", "memory.limit_in_bytes 268435456", "memory.max 268435456")
	g.set(t, "pids", "pids.max 64")
	p := g.start(t)
	m, _ := measuring(t, container.Container{ID: "truth", Runtime: "containerd", State: container.Running, PID: p.pid, Cgroup: g.member})

	// A process that answers goes on running for a moment: what it used at a scrape lies between its own account before
	// and that after it. How far they lie apart is the machine's affair; that the scrape lies between them is ours.
	joined := p.do("mark") // what it used before that was not in the cgroup
	before := value(t, m, "container_cpu_usage_seconds_total")
	began := p.do("mark")
	ended := p.do("burn 2000000000")
	after := value(t, m, "container_cpu_usage_seconds_total")
	at := p.do("mark")
	within(t, "CPU time between two scrapes", after-before, ended-began, at-joined, 0.01)
	within(t, "CPU time since it joined", after, ended-joined, at-p.start, 0.01)
	t.Logf("burnt %.4f s, scraped %.4f", ended-began, after-before)
	cpu := map[string]float64{} // of one page: between two the process goes on
	for id, v := range series(t, m, "container_cpu_") {
		name, _, _ := strings.Cut(id, "{")
		cpu[name], _ = strconv.ParseFloat(v, 64)
	}
	at = p.do("mark") // on v1 it is two files, and the process goes on between them as well
	sum := cpu["container_cpu_user_seconds_total"] + cpu["container_cpu_system_seconds_total"]
	if all := cpu["container_cpu_usage_seconds_total"]; all < after || sum < all-0.03 || sum > at-p.start+0.03 { // cpuacct.stat counts in steps of 10 ms each
		t.Errorf("of %v user and system are %v; by its own account it has used %v", all, sum, at-p.start)
	}

	const size = 64 << 20
	usage, rss, set := value(t, m, "container_memory_usage_bytes"), value(t, m, "container_memory_rss"), value(t, m, "container_memory_working_set_bytes")
	p.do("touch " + strconv.Itoa(size))
	about(t, "memory usage", value(t, m, "container_memory_usage_bytes")-usage, size, 0.01)
	about(t, "rss", value(t, m, "container_memory_rss")-rss, size, 0.01)
	about(t, "working set", value(t, m, "container_memory_working_set_bytes")-set, size, 0.01)
	shmem, cache := value(t, m, "container_memory_shmem_bytes"), value(t, m, "container_memory_cache")
	usage = value(t, m, "container_memory_usage_bytes")
	p.do("share " + strconv.Itoa(size))
	about(t, "shared memory", value(t, m, "container_memory_shmem_bytes")-shmem, size, 0.01)
	about(t, "cache", value(t, m, "container_memory_cache")-cache, size, 0.01)
	about(t, "memory usage by sharing", value(t, m, "container_memory_usage_bytes")-usage, size, 0.01)
	if most := value(t, m, "container_memory_max_usage_bytes"); most < usage+size*0.99 {
		t.Errorf("highest usage %v", most)
	}

	for name, want := range map[string]float64{
		"container_spec_cpu_quota": 150000, "container_spec_cpu_period": 100000, "container_spec_cpu_shares": 2597,
		"container_spec_memory_limit_bytes": 268435456, "container_threads_max": 64, "container_processes": 1,
		"machine_cpu_cores": onlineCPUs(t),
	} {
		if got := value(t, m, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	tasks := func() float64 {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		return float64(len(all))
	}
	least := tasks() // it may start one more at any time, and ends none
	if got := value(t, m, "container_threads"); got < least || got > tasks() {
		t.Errorf("%v threads, the process has %v", got, least)
	}
	if got := value(t, m, "container_cpu_cfs_periods_total"); got < 5 {
		t.Errorf("%v enforcement periods in a second of work", got)
	}
	if text := text(t, m); !strings.Contains(text, `id="`+g.member.Path()+`"`) {
		t.Error("the id label is not the cgroup's path")
	}
}

func onlineCPUs(t *testing.T) float64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nproc", "--all").Output()
	if err != nil {
		t.Skipf("nproc (coreutils): %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return float64(n)
}

func TestARemovedCgroupIsGoneAndAnotherOfItsNameIsRead(t *testing.T) {
	g := newCgroup(t, "gone")
	m, _ := measuring(t, container.Container{ID: "gone", Runtime: "containerd", State: container.Running, Cgroup: g.member})
	if got := value(t, m, "container_threads"); got != 0 || m.kept() == 0 {
		t.Errorf("%v threads in an empty cgroup, %v descriptors kept", got, m.kept())
	}
	for _, dir := range g.dirs {
		if err := g.remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if got := series(t, m, "container_"); len(got) != 0 || m.cost.gone.Value() != 1 {
		t.Errorf("gone (%d) but shown: %v", m.cost.gone.Value(), got)
	}
	if got := m.kept(); got != 0 {
		t.Errorf("%v descriptors of a removed cgroup are kept", got)
	}
	for _, dir := range g.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	g.set(t, "pids", "pids.max 7")
	if got := value(t, m, "container_threads_max"); got != 7 || m.kept() == 0 {
		t.Errorf("limit %v, %v descriptors", got, m.kept())
	}
	// Between two scrapes it is removed and made again: the kept descriptors are the old one's.
	for _, dir := range g.dirs {
		if err := g.remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g.set(t, "pids", "pids.max 9")
	if got := value(t, m, "container_threads_max"); got != 9 || m.cost.gone.Value() != 1 {
		t.Errorf("limit %v, %d gone", got, m.cost.gone.Value())
	}
}

// The cgroup is removed as soon as its last process is gone, as a runtime does it, and the inventory tells that later.
func TestTheLastSampleIsReadBeforeTheCgroupIsRemoved(t *testing.T) {
	g := newCgroup(t, "last")
	p := g.start(t)
	joined := p.do("mark")
	m, inv := measuring(t, container.Container{ID: "last", Runtime: "containerd", State: container.Running, PID: p.pid, Cgroup: g.member})
	if got := value(t, m, "container_processes"); got != 1 {
		t.Fatalf("%v processes", got)
	}
	p.do("burn 300000000")
	life := m.view.slots[0].life
	if life.pidfd == nil {
		t.Fatal("its first process is not watched")
	}
	if err := p.in.Close(); err != nil { // ends it
		t.Fatal(err)
	}
	for deadline := time.Now().Add(hosttest.Bound(5 * time.Second)); life.final.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its end was not noticed")
		}
	}
	for _, dir := range g.dirs {
		if err := g.remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	// To end costs a process CPU time too, some milliseconds on a slow machine. So the truth is what the kernel tells its
	// parent in the end, less what it had used before it joined the cgroup, which was between these two.
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	all := (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds()
	inv.publish()
	within(t, "CPU time in the last sample", value(t, m, "container_ended_cpu_usage_seconds"), all-joined, all-p.start, 0.01)
	if missed := m.cost.missed.Value(); missed != 0 {
		t.Errorf("%d missed", missed)
	}
}

// The kernel kills it for want of memory, and its cgroup is removed at once: the kill is counted all the same.
func TestAnOOMKillIsCountedWhenTheCgroupIsGone(t *testing.T) {
	g := newCgroup(t, "oom")
	g.set(t, "memory", "memory.limit_in_bytes 67108864", "memory.max 67108864")
	p := g.start(t)
	m, inv := measuring(t, container.Container{ID: "oom", Runtime: "containerd", State: container.Running, PID: p.pid, Cgroup: g.member})
	if got := value(t, m, "container_oom_events_total"); got != 0 {
		t.Fatalf("%v kills before there was one", got)
	}
	if _, err := fmt.Fprintln(p.in, "touch "+strconv.Itoa(256<<20)); err != nil {
		t.Fatal(err)
	}
	life := m.view.slots[0].life
	for deadline := time.Now().Add(hosttest.Bound(20 * time.Second)); life.final.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			if swaps, err := os.ReadFile("/proc/swaps"); err == nil && strings.Count(string(swaps), "\n") > 1 {
				t.Skip("the kernel did not kill it: there is swap")
			}
			t.Fatal("the kernel did not kill it; may it, or is oom_score_adj -1000 here?")
		}
	}
	for _, dir := range g.dirs {
		if err := g.remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	inv.publish()
	if got := value(t, m, "container_ended_oom_kills"); got != 1 {
		t.Errorf("%v kills in the last sample", got)
	}
	if got := m.cost.oomKills.Value(); got != 1 {
		t.Errorf("%v kills counted", got)
	}
	if got := value(t, m, "container_ended_memory_max_usage_bytes"); got < 60<<20 {
		t.Errorf("highest usage %v", got)
	}
}

// BenchmarkScrapeOfRealCgroups measures what the kernel's part of a scrape costs.
func BenchmarkScrapeOfRealCgroups(b *testing.B) {
	mounts, err := host.DefaultRoot().Cgroups()
	if err != nil {
		b.Fatal(err)
	}
	const n = 100
	var cs []container.Container
	made := map[string]bool{}
	b.Cleanup(func() {
		for dir := range made {
			if err := os.Remove(dir); err != nil {
				b.Error(err)
			}
		}
	})
	for i := range n {
		path := fmt.Sprintf("/fairlead-test-%d-%d", os.Getpid(), i)
		c := container.Container{ID: container.ID(strconv.Itoa(i)), Name: path, State: container.Running}
		c.Cgroup.V1 = map[string]string{}
		mkdir := func(mount string) string {
			if dir := filepath.Join(mount, path); !made[dir] {
				if err := os.Mkdir(dir, 0o755); err != nil {
					b.Fatal(err)
				}
				made[dir] = true
			}
			return path
		}
		for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "hugetlb"} {
			if at, ok := mounts.V1[controller]; ok {
				c.Cgroup.V1[controller] = mkdir(at)
			}
		}
		if mounts.Unified != "" {
			c.Cgroup.Unified = mkdir(mounts.Unified)
		}
		cs = append(cs, c)
	}
	for kind, budget := range map[string]int{"kept": 10_000, "opened": 0} {
		b.Run(kind, func(b *testing.B) {
			inv := &inventory{more: make(chan struct{})}
			m, err := New(DefaultConfig(), Deps{
				Inventory: inv, Root: host.DefaultRoot(), Stats: new(stat.Registry), Log: slog.New(slog.DiscardHandler),
				Descriptors: host.NewDescriptors(budget).Holder("metrics", 100),
			})
			if err != nil {
				b.Fatal(err)
			}
			defer m.closeAll()
			inv.publish(cs...)
			before := used()
			for b.Loop() {
				m.scrape(textGzip).recycle()
			}
			b.ReportMetric(float64(used()-before)/1e3/float64(b.N)/n, "cpu-us/container")
		})
	}
}
