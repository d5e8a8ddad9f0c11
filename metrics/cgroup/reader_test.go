package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/agent/host"
)

const (
	id      = "3f0c5a1e9b7d4c2286a1f05e7d3b9c4812e6a7f0d5b3c9e1a4f8270d6b5c3e91"
	v2path  = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7e1f.slice/cri-containerd-" + id + ".scope"
	libpod  = "/machine.slice/libpod-" + id + ".scope"
	v1path  = "/docker/" + id
	cgroups = "sys/fs/cgroup"
)

// budget is a Budget with so many descriptors left.
type budget struct{ left int }

func (b *budget) Acquire(n int) bool {
	if n > b.left {
		return false
	}
	b.left -= n
	return true
}
func (b *budget) Release(n int) { b.left += n }

// recorded gives the hierarchies and the membership of one recorded host, below a copy that the test may change.
func recorded(t testing.TB, name string) (string, host.Hierarchies, host.Membership) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("../testdata", name))); err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(dir, cgroups, p) }
	switch name {
	case "v1":
		return dir, host.Hierarchies{V1: map[string]string{
				"cpu": at("cpu,cpuacct"), "cpuacct": at("cpu,cpuacct"), "memory": at("memory"), "pids": at("pids"),
				"blkio": at("blkio"), "cpuset": at("cpuset"), "hugetlb": at("hugetlb")}},
			host.Membership{V1: map[string]string{"cpu": v1path, "cpuacct": v1path, "memory": v1path, "pids": v1path,
				"blkio": v1path, "cpuset": v1path, "hugetlb": v1path}}
	case "v2":
		return dir, host.Hierarchies{Unified: at(""), UnifiedControllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}},
			host.Membership{Unified: v2path}
	default:
		return dir, host.Hierarchies{V1: map[string]string{
				"cpu": at("cpu,cpuacct"), "cpuacct": at("cpu,cpuacct"), "pids": at("pids")}, Unified: at("unified"), UnifiedControllers: []string{"memory"}},
			host.Membership{V1: map[string]string{"cpu": libpod, "cpuacct": libpod, "pids": libpod}, Unified: libpod}
	}
}

var (
	v1CPUWant = CPU{
		Usage: Known(12345678901), User: Known(10010000000), System: Known(2330000000),
		Periods: Known(420), ThrottledPeriods: Known(17), Throttled: Known(2500000000),
		Quota: Known(50000), Period: Known(100000), Shares: Known(512), Bursts: Known(0), Burst: Known(0),
	}
	v2MemoryWant = Memory{
		Usage: Known(52428800), MaxUsage: Known(62914560), RSS: Known(31457280), Cache: Known(18874368), Mapped: Known(9437184),
		Swap: Known(4096), ActiveFile: Known(6291456), InactiveFile: Known(12582912), Limit: Known(134217728),
		SwapLimit: Known(Unlimited), HitLimit: Known(7), HitHigh: Known(0), OOMs: Known(1), OOMKills: Known(1), Reservation: Known(0),
		Kernel: Known(2097152), Shmem: Known(0), AnonHuge: Known(0), Unevictable: Known(0), ActiveAnon: Known(4096), InactiveAnon: Known(31457280),
		Dirty: Known(0), Writeback: Known(0), Faults: Known(40211), MajorFaults: Known(81), OwnFaults: Known(40211), OwnMajor: Known(81),
		RefaultFile: Known(0), RefaultAnon: Known(0), Scanned: Known(0), Stolen: Known(0),
		Pressure: Pressure{Some: Known(7000), Full: Known(3000)},
	}
	cpuPressure = Pressure{Some: Known(1500000000), Full: Known(250000000)}
	ioPressure  = Pressure{Some: Known(90000000), Full: Known(80000000)}
	v1PidsWant  = Pids{Threads: Known(9), Limit: Known(100), Processes: Known(3)}
)

// with gives a changed copy.
func with[T any](v T, change func(*T)) T {
	change(&v)
	return v
}

// counts gives the values of Read, Write, Sync, Async, Discard and Total.
func counts(n ...uint64) (out [ops]Value) {
	for i, v := range n {
		out[i] = Known(v)
	}
	return out
}

var wants = map[string]Stats{
	"v1": {IO: []Device{
		{Major: 8, Bytes: counts(4096000, 8192, 4100096, 4096, 0, 4104192), Done: counts(1000, 2, 1001, 1, 0, 1002)},
		{Major: 7, Minor: 1, Bytes: counts(512, 0, 512, 0, 0, 512), Done: counts(1, 0, 1, 0, 0, 1)},
	}, Huge: []Huge{{PageSize: "2MB", Usage: Known(4194304), MaxUsage: Known(6291456), HitLimit: Known(2)}},
		CPU: with(v1CPUWant, func(c *CPU) { c.Allowed = Known(3) }), Pids: v1PidsWant, Memory: Memory{
			Usage: Known(104857600), MaxUsage: Known(134217728), RSS: Known(73400320), Cache: Known(20971520), Mapped: Known(4194304),
			Swap: Known(8192), ActiveFile: Known(4194304), InactiveFile: Known(16777216), Limit: Known(268435456),
			SwapLimit: Known(9223372036854771712), HitLimit: Known(3), OOMKills: Known(5), UnderOOM: Known(0), Kernel: Known(245760),
			Reservation: Known(9223372036854771712), Shmem: Known(0), AnonHuge: Known(0), Unevictable: Known(0), ActiveAnon: Known(0), InactiveAnon: Known(73400320),
			Dirty: Known(0), Writeback: Known(0), Faults: Known(60211), MajorFaults: Known(12), OwnFaults: Known(60211), OwnMajor: Known(12),
			RefaultFile: Known(0), RefaultAnon: Known(0), Migrate: Known(0),
		}},
	"v2": {IO: []Device{{Major: 8, Bytes: [ops]Value{Read: Known(4096000), Write: Known(8192), Discard: Known(0)},
		Done: [ops]Value{Read: Known(1000), Write: Known(2), Discard: Known(0)}}},
		IOPressure: ioPressure, Huge: []Huge{{PageSize: "1GB", Usage: Known(1 << 30), HitLimit: Known(4)}},
		Memory: with(v2MemoryWant, func(m *Memory) { m.Reservation = Known(32 << 20) }), Pids: Pids{Threads: Known(5), Limit: Known(Unlimited), Processes: Known(2)}, CPU: CPU{
			Usage: Known(9876543000), User: Known(7000001000), System: Known(2876542000),
			Periods: Known(99), ThrottledPeriods: Known(4), Throttled: Known(123456000),
			Quota: Known(20000), Period: Known(100000), Shares: Known(500), Bursts: Known(0), Burst: Known(0),
			Allowed: Known(4), Pressure: cpuPressure,
		}},
	"hybrid": {IOPressure: ioPressure, CPU: with(v1CPUWant, func(c *CPU) { c.Pressure = cpuPressure }), Memory: v2MemoryWant, Pids: v1PidsWant},
}

func TestEachLayoutIsReadWhereItsControllersAre(t *testing.T) {
	t.Parallel()
	for name, want := range wants {
		for kind, left := range map[string]int{"kept open": 1000, "opened each time": 0} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				_, h, m := recorded(t, name)
				b := &budget{left: left}
				tree := NewTree(h, b)
				r := tree.Reader(m)
				var buf Buffer
				for range 3 { // descriptors are read from the start each time
					var got Stats
					if err := r.Read(&buf, &got); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Fatal(diff)
					}
				}
				if kept, opened := tree.Kept() > 0, tree.Opened() > 0; kept != (left > 0) || opened == kept {
					t.Errorf("keeps %d, opened %d with a budget of %d", tree.Kept(), tree.Opened(), left)
				}
				r.Close()
				r.Close()
				if b.left != left {
					t.Errorf("the budget has %d of %d after Close", b.left, left)
				}
				if err := r.Read(&buf, new(Stats)); !errors.Is(err, ErrGone) {
					t.Errorf("read after Close: %v", err)
				}
			})
		}
	}
}

func TestChangesAreSeenThroughKeptDescriptors(t *testing.T) {
	t.Parallel()
	dir, h, m := recorded(t, "v2")
	r := NewTree(h, &budget{left: 100}).Reader(m)
	defer r.Close()
	var buf Buffer
	var s Stats
	if err := r.Read(&buf, &s); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, cgroups, v2path, "memory.current"), "1\n")
	if err := r.Read(&buf, &s); err != nil || s.Memory.Usage != Known(1) {
		t.Errorf("got %+v, %v", s.Memory.Usage, err)
	}
}

func TestAMissingFileIsUnknownAndCostsNoDescriptor(t *testing.T) {
	t.Parallel()
	dir, h, m := recorded(t, "v2")
	for _, f := range []string{"memory.peak", "memory.swap.current", "memory.swap.max", "cpu.max"} {
		if err := os.Remove(filepath.Join(dir, cgroups, v2path, f)); err != nil {
			t.Fatal(err)
		}
	}
	want := wants["v2"]
	want.Memory.MaxUsage, want.Memory.Swap, want.Memory.SwapLimit = Value{}, Value{}, Value{}
	want.CPU.Quota, want.CPU.Period = Value{}, Value{}
	b := &budget{left: 100}
	tree := NewTree(h, b)
	r := tree.Reader(m)
	var got Stats
	if err := r.Read(new(Buffer), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if files := 21 - 4; b.left != 100-files || tree.Kept() != files {
		t.Errorf("%d kept, %d left in the budget", tree.Kept(), b.left)
	}
	if r.Close(); b.left != 100 {
		t.Errorf("%d of 100 left after Close", b.left)
	}
}

func TestGarbageInOneFileIsNamedAndTheOthersAreStillRead(t *testing.T) {
	t.Parallel()
	dir, h, m := recorded(t, "v1")
	bad := filepath.Join(dir, cgroups, "memory", v1path, "memory.usage_in_bytes")
	write(t, bad, "\x00garbage\n")
	r := NewTree(h, &budget{left: 100}).Reader(m)
	defer r.Close()
	var got Stats
	err := r.Read(new(Buffer), &got)
	if err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("error does not name %s: %v", bad, err)
	}
	want := wants["v1"]
	want.Memory.Usage = Value{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestACgroupThatIsRemovedIsGone(t *testing.T) {
	t.Parallel()
	dir, h, m := recorded(t, "v2")
	r := NewTree(h, &budget{}).Reader(m)
	var got Stats
	if err := r.Read(new(Buffer), &got); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, cgroups, v2path)); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(new(Buffer), &got); !errors.Is(err, ErrGone) || !reflect.DeepEqual(got, Stats{IO: []Device{}, Huge: []Huge{}}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAReaderThatWasRefusedKeepsItsFilesOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	_, h, m := recorded(t, "v2")
	b := &budget{left: 3}
	tree := NewTree(h, b)
	r := tree.Reader(m)
	defer r.Close()
	read := func() {
		t.Helper()
		if err := r.Read(new(Buffer), new(Stats)); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if tree.Kept() != 0 || tree.Opened() != 21 {
		t.Fatalf("kept %d, opened %d", tree.Kept(), tree.Opened())
	}
	b.left = 50
	read()
	if tree.Kept() != 21 || tree.Opened() != 21 {
		t.Errorf("kept %d, opened %d", tree.Kept(), tree.Opened())
	}
}

func TestALongListOfProcessesIsCountedWhole(t *testing.T) {
	t.Parallel()
	dir, h, m := recorded(t, "v2")
	write(t, filepath.Join(dir, cgroups, v2path, "cgroup.procs"), strings.Repeat("1234567\n", 10_000))
	r := NewTree(h, &budget{left: 100}).Reader(m)
	defer r.Close()
	var s Stats
	if err := r.Read(new(Buffer), &s); err != nil || s.Pids.Processes != Known(10_000) {
		t.Errorf("got %+v, %v", s.Pids.Processes, err)
	}
}

// The kernel gives a list of records at most a page at a time, as it does with this one.
func TestALongFileOfTheKernelIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	const path = "/proc/kallsyms"
	size := func() int {
		text, err := os.ReadFile(path)
		if err != nil || len(text) < 64<<10 {
			t.Skipf("%s has %d bytes (%v)", path, len(text), err)
		}
		return len(text)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b Buffer
	for read, want := 0, size(); read < 2; {
		got, err := b.read(int(f.Fd()), true)
		if err != nil {
			t.Fatal(err)
		}
		before := want
		if want = size(); want != before {
			continue // whoever starts a container loads a program for its devices, which is a symbol
		}
		if read++; len(got) != want {
			t.Errorf("%d bytes of %d", len(got), want)
		}
	}
}

func TestTheRootCgroupAndForeignPathsAreNotAContainers(t *testing.T) {
	t.Parallel()
	_, h, _ := recorded(t, "hybrid")
	for _, path := range []string{"", "/", "/../other"} {
		m := host.Membership{V1: map[string]string{"cpu": path, "cpuacct": path, "pids": path}, Unified: path}
		if got := NewTree(h, &budget{}).files(m, below); len(got) > 0 {
			t.Errorf("%q: reads %s", path, got[0].path())
		}
	}
}

func TestOwnIsTheContainersWholeCgroup(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/docker/" + id:                             "/docker/" + id,
		"/docker/" + id + "/init.scope":             "/docker/" + id,
		libpod + "/container":                       libpod,
		"/system.slice/docker-" + id + ".scope/a/b": "/system.slice/docker-" + id + ".scope",
		"/kubepods/pod1/x" + id:                     "/kubepods/pod1/x" + id,
		"/made/by/hand":                             "/made/by/hand",
		"":                                          "",
		"/":                                         "/",
	} {
		got := Own(host.Membership{Unified: in, V1: map[string]string{"memory": in}}, id)
		if got.Unified != want || got.V1["memory"] != want {
			t.Errorf("%s: got %s and %s, want %s", in, got.Unified, got.V1["memory"], want)
		}
	}
	if got := Own(host.Membership{Unified: "/a/a-b.scope/c"}, "b"); got.Unified != "/a/a-b.scope" {
		t.Errorf("short id: %s", got.Unified)
	}
}

// The budget of issue 7: a scrape allocates nothing per container.
func TestReadAllocatesNothing(t *testing.T) {
	for name := range wants {
		_, h, m := recorded(t, name)
		r := NewTree(h, &budget{left: 100}).Reader(m)
		defer r.Close()
		var buf Buffer
		var s Stats
		if n := testing.AllocsPerRun(50, func() {
			if err := r.Read(&buf, &s); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a read", name, n)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, layout := range []string{"v1", "v2"} {
		for kind, left := range map[string]int{"kept": 100, "opened": 0} {
			b.Run(layout+"/"+kind, func(b *testing.B) {
				_, h, m := recorded(b, layout)
				r := NewTree(h, &budget{left: left}).Reader(m)
				defer r.Close()
				var buf Buffer
				var s Stats
				b.ReportAllocs()
				for b.Loop() {
					if err := r.Read(&buf, &s); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A runtime that removes a cgroup while its last sample is read takes nothing away of what was read before.
func TestWhatWasReadBeforeTheCgroupWentStaysInTheLastSample(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := NewTree(host.Hierarchies{V1: map[string]string{"cpuacct": dir, "memory": dir}}, host.NewDescriptors(100).Holder("test", 100))
	for name, text := range map[string]string{"cpuacct/cpuacct.usage": "7\n", "cpuacct/cpuacct.stat": "user 1\nsystem 1\n"} {
		path := filepath.Join(dir, "c", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := tree.Reader(host.Membership{V1: map[string]string{"cpuacct": "/c/cpuacct", "memory": "/c/memory"}}) // the latter is gone
	defer r.Close()
	var b Buffer
	var s Stats
	if err := r.ReadLast(&b, &s); !errors.Is(err, ErrGone) || s.CPU.Usage != Known(7) {
		t.Errorf("%+v, %v", s.CPU, err)
	}
	if err := r.Read(&b, &s); !errors.Is(err, ErrGone) || s.CPU.Usage.Known {
		t.Errorf("%+v, %v", s.CPU, err)
	}
}
