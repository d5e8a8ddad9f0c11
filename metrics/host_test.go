package metrics

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
)

const recordedID = "3f0c5a1e9b7d4c2286a1f05e7d3b9c4812e6a7f0d5b3c9e1a4f8270d6b5c3e91"

var (
	epoch   = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)
	otherNS = host.NetNS{Dev: 4, Ino: 2}
)

// recordedContainers are the containers of the recorded hosts, by layout.
func recordedContainer(layout string) container.Container {
	c := container.Container{
		ID: recordedID, State: container.Running, Started: epoch.Add(-time.Hour), PID: 4711, NetNS: otherNS,
		Links: []container.Link{{Index: 12, Name: "veth12"}}, Image: "docker.io/library/nginx:1.29",
	}
	switch layout {
	case "v1":
		p := "/docker/" + recordedID
		c.Runtime, c.Name = "docker", "web"
		c.Cgroup = host.Membership{V1: map[string]string{"cpu": p, "cpuacct": p, "memory": p, "pids": p, "blkio": p, "cpuset": p, "hugetlb": p}}
	case "v2":
		c.Runtime, c.Name = "cri", "nginx"
		c.Pod = container.Pod{Namespace: "shop", Name: "web-0", UID: "7e1f", Container: "nginx"}
		c.Cgroup.Unified = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7e1f.slice/cri-containerd-" + recordedID + ".scope"
	case "hybrid":
		p := "/machine.slice/libpod-" + recordedID + ".scope"
		c.Runtime, c.Name = "podman", "web"
		c.Cgroup = host.Membership{V1: map[string]string{"cpu": p, "cpuacct": p, "pids": p}, Unified: p + "/container"}
	}
	return c
}

// recordedHost is a copy of a recorded host and a Metrics part that reads it.
type recordedHost struct {
	*Metrics
	*inventory
	dir   string
	stats *stat.Registry
	log   *strings.Builder
	left  *host.Descriptors
}

// inventory is an Inventory whose snapshots a test publishes.
type inventory struct {
	mu   sync.Mutex
	snap *container.Snapshot
	more chan struct{} // closed with each publication
}

func (i *inventory) Snapshot() *container.Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.snap
}

func (i *inventory) publish(cs ...container.Container) {
	i.mu.Lock()
	defer i.mu.Unlock()
	seq := uint64(1)
	if i.snap != nil {
		seq = i.snap.Seq + 1
	}
	i.snap = &container.Snapshot{Seq: seq, Containers: cs}
	close(i.more)
	i.more = make(chan struct{})
}

func (i *inventory) Follow(ctx context.Context) iter.Seq[*container.Snapshot] {
	return func(yield func(*container.Snapshot) bool) {
		for {
			i.mu.Lock()
			snap, more := i.snap, i.more
			i.mu.Unlock()
			if !yield(snap) {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}

func newHost(t testing.TB, layout string, change func(*Config)) *recordedHost {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", layout))); err != nil {
		t.Fatal(err)
	}
	h := &recordedHost{
		inventory: &inventory{more: make(chan struct{})}, dir: dir, stats: new(stat.Registry), log: new(strings.Builder),
		left: host.NewDescriptors(100_000),
	}
	mounts := h.read(t, "proc/self/mountinfo")
	h.write(t, "proc/self/mountinfo", strings.ReplaceAll(mounts, "SYS", filepath.Join(dir, "sys")))
	cfg := DefaultConfig()
	cfg.Aggregates, cfg.KeepEnded = false, 0 // most tests look at one container
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg, Deps{
		Inventory: h.inventory, Root: host.Root{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")},
		Stats: h.stats, Descriptors: h.left.Holder("metrics", 100), Log: slog.New(slog.NewTextHandler(h.log, nil)),
		Now: func() time.Time { return epoch },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.dial = kernel(map[int]uint64{12: 100, 99: 900})
	h.Metrics = m
	t.Cleanup(func() { m.closeAll() })
	return h
}

// kernel plays the kernel's part of a link dump: each link's first eight counters are first, first+1, ...
func kernel(links map[int]uint64) func(time.Time) (io.ReadWriteCloser, error) {
	return func(time.Time) (io.ReadWriteCloser, error) { return &route{links: links}, nil }
}

// route is a route netlink socket with the kernel behind it.
type route struct {
	links  map[int]uint64
	answer []byte
}

func (r *route) Write(request []byte) (int, error) {
	message := func(kind uint16, data []byte) {
		b := binary.NativeEndian.AppendUint32(r.answer, uint32(16+len(data)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
		b = append(append(b, request[8:12]...), 0, 0, 0, 0)
		r.answer = append(b, data...)
	}
	for index, first := range r.links {
		b := make([]byte, 16+8*25)
		binary.NativeEndian.PutUint32(b[4:], uint32(index))
		binary.NativeEndian.PutUint16(b[12:], uint16(len(b)-12))
		binary.NativeEndian.PutUint16(b[14:], 1)
		for i := range uint64(8) {
			binary.NativeEndian.PutUint64(b[16+8*i:], first+i)
		}
		message(unix.RTM_NEWSTATS, b)
	}
	message(unix.NLMSG_DONE, make([]byte, 4))
	return len(request), nil
}

func (r *route) Read(b []byte) (int, error) {
	n := copy(b, r.answer)
	r.answer = nil
	return n, nil
}

func (r *route) Close() error { return nil }

func (h *recordedHost) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (h *recordedHost) write(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// scrape answers GET /metrics with these headers ("Name: value").
func scrape(t testing.TB, m *Metrics, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	res := w.Result()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s", res.Status)
	}
	return res
}

// text gives the page as one string.
func text(t testing.TB, m *Metrics) string {
	t.Helper()
	return readAll(t, scrape(t, m))
}

// series gives the value of each series of the page whose name begins with prefix.
func series(t testing.TB, m *Metrics, prefix string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(text(t, m)) {
		if i := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, prefix) {
			if _, twice := out[line[:i]]; twice {
				t.Errorf("%s is there twice", line[:i])
			}
			out[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return out
}

// crowd gives n containers with copies of the recorded cgroup of layout v1 or v2.
func (h *recordedHost) crowd(t testing.TB, layout string, n int) []container.Container {
	t.Helper()
	first := recordedContainer(layout)
	out := []container.Container{}
	for i := range n {
		c := first
		c.ID = container.ID(fmt.Sprintf("%012x%s", i, recordedID[12:]))
		c.Name = fmt.Sprintf("web-%d", i)
		c.NetNS.Ino += uint64(i)
		c.Links = []container.Link{{Index: 1000 + i, Name: fmt.Sprintf("veth%d", i)}}
		c.Cgroup = host.Membership{V1: map[string]string{}}
		copyTo := func(mount, path string) string {
			to := strings.ReplaceAll(path, recordedID, string(c.ID))
			at := filepath.Join(h.dir, "sys/fs/cgroup", mount)
			if err := os.CopyFS(filepath.Join(at, to), os.DirFS(filepath.Join(at, path))); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
			return to
		}
		if first.Cgroup.Unified != "" {
			c.Cgroup.Unified = copyTo("", first.Cgroup.Unified)
		}
		for controller, mount := range map[string]string{"cpu": "cpu,cpuacct", "memory": "memory", "pids": "pids"} {
			if p := first.Cgroup.V1[controller]; p != "" {
				c.Cgroup.V1[controller] = copyTo(mount, p)
			}
		}
		if p, ok := c.Cgroup.V1["cpu"]; ok {
			c.Cgroup.V1["cpuacct"] = p
		}
		out = append(out, c)
	}
	return out
}

// value gives the one series of the family called name.
func value(t *testing.T, m *Metrics, name string) float64 {
	t.Helper()
	all := series(t, m, name+"{")
	for _, v := range all {
		if f, err := strconv.ParseFloat(v, 64); err == nil && len(all) == 1 {
			return f
		}
	}
	t.Fatalf("%s: %v", name, all)
	return 0
}
