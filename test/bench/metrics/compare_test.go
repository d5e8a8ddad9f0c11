//go:build kernel

package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/metrics"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// TestOurPageIsCAdvisorsUpToTheListedDifferences scrapes both at the same time, containers still, and compares every
// series that cAdvisor has of them and of the machine: name, labels and value. What differs must be in
// metrics.Differences, with a reason.
func TestOurPageIsCAdvisorsUpToTheListedDifferences(t *testing.T) {
	hosttest.Require(t, "containerd", "ctr", "runc", "busybox")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := newWorld(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.containers(ctx, 3); err != nil {
		t.Fatal(err)
	}
	work(t, w)
	traffic(t, w)
	mounts, err := host.DefaultRoot().Cgroups()
	if err != nil {
		t.Fatal(err)
	}
	version := "v1"
	if mounts.Mode() == "v2" {
		version = "v2"
	}
	ours, err := ours(ctx, w.containerd.Address)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := cadvisor(w.containerd.Address)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(w.missing(get(ours))) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("we do not see %v", w.missing(get(ours)))
		}
	}

	before, theirs, after := parse(t, get(ours)), parse(t, get(peer)), parse(t, get(ours))
	listed := map[string][]metrics.Difference{}
	for _, d := range metrics.Differences() {
		listed[d.Name] = append(listed[d.Name], d)
	}
	var compared int
	unlisted := map[string]string{}
	used := map[string]bool{}
	for id, v := range theirs {
		name, _, _ := strings.Cut(id, "{")
		if !w.concerns(id) && !strings.HasPrefix(name, "machine_") {
			continue
		}
		compared++
		low, ok := before.find(id)
		high, ok2 := after.find(id)
		var problem string
		switch {
		case !ok || !ok2:
			problem = "we have no " + id
		case !between(v, low, high, strings.Contains(id, `{id="/"}`)):
			problem = fmt.Sprintf("%s: cadvisor %v, ours %v and then %v", id, v, low, high)
		default:
			continue
		}
		root := strings.Contains(id, `id="/"`)
		if slices.ContainsFunc(listed[name], func(d metrics.Difference) bool { return d.Covers(version, root, v) }) {
			used[name] = true
			continue
		}
		unlisted[name] = problem
	}
	for _, name := range slices.Sorted(keys(unlisted)) {
		t.Error(unlisted[name])
	}
	for _, name := range []string{"container_fs_writes_bytes_total", "container_blkio_device_usage_total"} {
		if !has(theirs, name) {
			t.Errorf("cadvisor shows no %s: nothing wrote to a disk", name)
		}
	}
	if compared < 3*55 {
		t.Errorf("only %d series were compared", compared)
	}
	trafficShown(t, w, theirs)
	t.Logf("on %s %d series compared; differing as listed here: %v", version, compared, slices.Sorted(keys(used)))

	// Types too: a rate over a gauge is a mistake that no value shows.
	types := typesOf(get(ours))
	for name, typ := range typesOf(get(peer)) {
		if mine, ok := types[name]; ok && mine != typ {
			t.Errorf("%s is a %s, cadvisor's a %s", name, mine, typ)
		}
	}
	for _, m := range metrics.Table() {
		for id := range after {
			if name, _, _ := strings.Cut(id, "{"); name == m.Name && !has(theirs, name) && listed[name] == nil && w.concerns(id) {
				t.Errorf("%s is not in cadvisor and not listed as ours", name)
				break
			}
		}
	}
}

// work gives the containers something to show: memory, page faults, files, and I/O on a block device.
func work(t *testing.T, w *world) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(w.dir, &st); err != nil {
		t.Fatal(err)
	}
	// Since Linux 6.10 v1 counts only on devices that have a rule; this one allows everything.
	rule := fmt.Sprintf("%d:%d %d", unix.Major(st.Dev), unix.Minor(st.Dev), int64(1)<<40)
	for _, id := range w.ids {
		for _, kind := range []string{"read", "write"} {
			path := filepath.Join("/sys/fs/cgroup/blkio", namespace, id, "blkio.throttle."+kind+"_bps_device")
			if err := os.WriteFile(path, []byte(rule), 0o644); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		if _, err := w.containerd.Ctr(t.Context(), namespace, "task", "exec", "--exec-id", "work", id, "/bin/sh", "-c",
			"dd if=/dev/zero of=/tmp/file bs=1M count=4 conv=fsync 2>/dev/null; dd if=/bin/busybox of=/dev/null bs=64k 2>/dev/null"); err != nil {
			t.Fatal(err)
		}
	}
	// One meets its memory limit of 64 MiB, so that the kernel has to reclaim.
	if _, err := w.containerd.Ctr(t.Context(), namespace, "task", "exec", "--exec-id", "fill", w.ids[0], "/bin/sh", "-c",
		"dd if=/dev/zero of=/tmp/fill bs=1M count=80 2>/dev/null; sync; rm /tmp/fill"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the dirty pages' own accounting settles in the background
}

func get(h http.Handler) []byte {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.Bytes()
}

// page has the values of series, by name and sorted labels.
type page map[string]float64

var label = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)

func parse(t *testing.T, text []byte) page {
	t.Helper()
	p := page{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "fairlead_") {
			continue
		}
		at := strings.LastIndex(line, "}") + 1
		if at == 0 {
			continue // cAdvisor's own, without labels
		}
		// cAdvisor adds the time of its reading after the value.
		v, err := strconv.ParseFloat(strings.Fields(line[at:])[0], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		var sorted []string
		for _, m := range label.FindAllStringSubmatch(labels, -1) {
			if m[2] != "" { // an empty label is none
				sorted = append(sorted, m[0])
			}
		}
		slices.Sort(sorted)
		key := name + "{" + strings.Join(sorted, ",") + "}"
		if _, twice := p[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		p[key] = v
	}
	return p
}

func (p page) find(id string) (float64, bool) {
	v, ok := p[id]
	return v, ok
}

// concerns tells whether a series is of one of the world's containers, or of the machine as a whole.
func (w *world) concerns(id string) bool {
	return slices.Contains(w.ids, idOf(id)) || strings.Contains(id, `{id="/"}`)
}

// between allows for what moved while the three pages were read, and 2 % or 20 ms or 256 KiB beyond it: the kernel
// gathers its counters per processor in batches. The machine as a whole does not stand still; there it is 10 %.
func between(v, a, b float64, busy bool) bool {
	low, high := min(a, b), max(a, b)
	slack := 0.02 * math.Abs(v)
	switch {
	case busy:
		slack = max(0.1*math.Abs(v), 16<<20)
		return v >= low-slack && v <= high+slack
	case v > 1<<16:
		slack = max(slack, 256<<10)
	case v < 1000:
		slack = max(slack, 0.02)
	}
	if v > 1e9 { // times and sizes of the machine
		slack = 2
	}
	return v >= low-slack && v <= high+slack
}

func typesOf(text []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "#" && f[1] == "TYPE" {
			out[f[2]] = f[3]
		}
	}
	return out
}

func has(p page, name string) bool {
	for id := range p {
		if strings.HasPrefix(id, name+"{") {
			return true
		}
	}
	return false
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
