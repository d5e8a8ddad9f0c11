package metrics

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// A container's cgroup cannot be read once its runtime has removed it, which is some ten milliseconds after its end. So
// its first process is watched by a pidfd, which costs nothing until it fires, and the cgroup is read at that moment: the
// process is dead, with all others of its pid namespace, and nobody has been told yet.

// final is the last sample of a container.
type final struct {
	stats  cgroup.Stats
	at     time.Time
	missed bool // it could not be read: stats knows nothing
}

// ended is a container that is no more, with its last sample. It is never modified after its view was published.
type ended struct {
	slot  *slot
	final *final
	until time.Time // it is shown
	kept  time.Time // until then, at least, it is there for the history
	past  bool      // its container has ended again since: it is accounted, and shown no more
	exit  *int      // nil while nobody said
}

// shown tells whether e is on a page of that moment.
func (e *ended) shown(at time.Time) bool {
	return !e.past && !at.After(e.until) && e.until.After(e.final.at)
}

// keepsEnded tells whether last samples are read: to be shown, or for the history.
func (m *Metrics) keepsEnded() bool { return m.cfg.KeepEnded > 0 || m.history != nil }

// endedAt makes the last sample of s, whose times begin at f.
func (m *Metrics) endedAt(s *slot, f *final) *ended {
	e := &ended{slot: s, final: f, until: f.at.Add(m.cfg.KeepEnded)}
	e.kept = e.until
	if m.history != nil { // which asks once an interval, and may be late once
		e.kept = latest(e.until, m.deps.Now().Add(2*m.cfg.History.Interval))
	}
	return e
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// mostEnded bounds how many last samples are kept, whatever metrics.keep_ended says.
const mostEnded = 2000

// endedMetric has one series for each container that ended lately.
type endedMetric struct {
	Metric
	value func(e *ended) (float64, bool)
}

var endedMetrics = []endedMetric{
	ofEnded("container_ended_time_seconds", "seconds", "When the container's last sample was read, in seconds since 1970: at the end of its first process.",
		func(e *ended) (float64, bool) { return float64(e.final.at.UnixMilli()) / 1e3, !e.final.missed }),
	ofEnded("container_ended_exit_code", "", "The exit code, once the container's runtime has told it.",
		func(e *ended) (float64, bool) {
			if e.exit == nil {
				return 0, false
			}
			return float64(*e.exit), true
		}),
	ofEnded("container_ended_cpu_usage_seconds", "seconds", "CPU time that the container used in all.",
		finally(1e9, func(s *cgroup.Stats) cgroup.Value { return s.CPU.Usage })),
	ofEnded("container_ended_cpu_throttled_seconds", "seconds", "Time for which its CPU quota had stopped the container.",
		finally(1e9, withQuota(func(s *cgroup.Stats) cgroup.Value { return s.CPU.Throttled }))),
	ofEnded("container_ended_memory_max_usage_bytes", "bytes", "The highest memory usage that the container had.",
		finally(1, func(s *cgroup.Stats) cgroup.Value { return s.Memory.MaxUsage })),
	ofEnded("container_ended_oom_kills", "", "Processes that the kernel killed in the container for want of memory; of one whose last sample was missed, 1 when its runtime says that it was killed so.",
		finally(1, func(s *cgroup.Stats) cgroup.Value { return s.Memory.OOMKills })),
}

func ofEnded(name, unit, help string, value func(*ended) (float64, bool)) endedMetric {
	return endedMetric{Metric{Family: expo.Family{Name: name, Unit: unit, Type: stat.TypeGauge, Help: help}, Group: "ended"}, value}
}

func finally(unit float64, of field) func(*ended) (float64, bool) {
	return func(e *ended) (float64, bool) {
		v := of(&e.final.stats)
		return float64(v.N) / unit, v.Known
	}
}

// watch waits for the end of s's first process and then reads its last sample. It does nothing where that cannot be seen
// from here; then the sample is read when the inventory tells the end, if the cgroup is still there.
func (m *Metrics) watch(s *slot) {
	pid := s.key.pid
	if pid == 0 || !m.keepsEnded() || !m.samePIDs() || !m.deps.Descriptors.Acquire(1) {
		return
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		m.deps.Descriptors.Release(1)
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	in, err := m.deps.Root.CgroupOf(pid) // the number may be another's by now
	conn, err2 := f.SyscallConn()
	if err != nil || err2 != nil || !strings.HasPrefix(in.Path(), s.key.path) {
		_ = f.Close()
		m.deps.Descriptors.Release(1)
		return
	}
	s.life.pidfd = f
	m.watchers.Go(func() {
		defer m.deps.Descriptors.Release(1)
		polled := false
		err := conn.Read(func(uintptr) bool { was := polled; polled = true; return was })
		if err == nil { // else it was closed
			m.finish(s)
		}
		_ = f.Close()
	})
}

// samePIDs tells whether the process numbers below host.proc are those of this process's own pid namespace.
func (m *Metrics) samePIDs() bool {
	self, err := os.Readlink(filepath.Join(m.deps.Root.Proc, "self"))
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// finish reads the last sample of s, and answers whether there is one.
func (m *Metrics) finish(s *slot) bool {
	var buf cgroup.Buffer
	f := &final{at: m.deps.Now()}
	s.reader.Refresh()
	err := s.reader.ReadLast(&buf, &f.stats)
	if f.stats.CPU.Usage.Known || f.stats.Memory.Usage.Known || f.stats.Pids.Threads.Known || err == nil {
		s.life.final.Store(f)
	}
	return s.life.final.Load() != nil
}

// bury takes s off the living ones: closes what is open for it and gives its last sample, or nil when none is kept. That
// one could not be read is counted.
func (m *Metrics) bury(s *slot, snap *container.Snapshot) *ended {
	defer func() {
		s.reader.Close()
		if s.life.pidfd != nil {
			_ = s.life.pidfd.Close()
		}
	}()
	if s.several || !m.keepsEnded() {
		return nil
	}
	f := s.life.final.Load()
	if f == nil && s.life.busy.TryLock() { // a read that hangs is not joined by another
		if m.finish(s) {
			f = s.life.final.Load()
		}
		s.life.busy.Unlock()
	}
	if f == nil {
		last := lastOf(s, snap)
		m.deps.Log.Debug("last sample missed: the cgroup was gone", "container", s.id, "cgroup", s.key.path, "watched", s.life.pidfd != nil)
		return m.missed(s, last != nil && last.OOMKilled)
	}
	m.cost.samples.Inc()
	m.cost.oomKills.Add(f.stats.Memory.OOMKills.N)
	return m.endedAt(s, f)
}

// missed counts that s ended without a last sample. What its runtime says of its end is kept all the same.
func (m *Metrics) missed(s *slot, oomKilled bool) *ended {
	f := &final{at: m.deps.Now(), missed: true}
	if oomKilled {
		f.stats.Memory.OOMKills = cgroup.Known(1)
		m.cost.oomKills.Inc()
	}
	m.cost.missed.Inc()
	return m.endedAt(s, f)
}

// unseen gives those that ended without having been in a view: they began and ended between two snapshots, or they had
// ended before the agent began, which is not counted as missed. Each is given once.
func (m *Metrics) unseen(snap *container.Snapshot) []*ended {
	if !m.keepsEnded() {
		return nil
	}
	if m.began.IsZero() {
		m.began = m.deps.Now()
	}
	var out []*ended
	known := make(map[key]time.Time, len(m.met))
	take := func(c *container.Container, gone bool) {
		k := key{runtime: c.Runtime, id: c.ID}
		started, met := m.met[k]
		// One that is gone and was last seen before its start may have run since: rather one too many than a silent 0.
		if c.Alive() || c.State == container.Created && !gone || !m.cfg.wanted(c) {
			return
		}
		known[k] = c.Started
		if met && (started.Equal(c.Started) || started.IsZero() || c.Started.IsZero()) {
			known[k] = started
			return
		}
		s := &slot{key: key{runtime: c.Runtime, id: c.ID, started: c.Started}, runtime: c.Runtime, id: c.ID, name: c.Name, pod: c.Pod, image: c.Image,
			created: c.Created, started: c.Started, labels: expo.NewLabels(labels(c, c.Cgroup.Path())), life: new(life)}
		now := m.deps.Now()
		switch {
		case c.Finished.After(m.began), c.Started.After(m.began), c.Created.After(m.began):
			out = append(out, m.missed(s, c.OOMKilled))
		case c.Finished.Add(m.cfg.KeepEnded).After(now):
			out = append(out, m.endedAt(s, &final{at: c.Finished, missed: true}))
		}
	}
	for i := range snap.Containers {
		take(&snap.Containers[i], false)
	}
	for i := range snap.Gone {
		take(&snap.Gone[i].Container, true)
	}
	// One whose process had ended when the inventory asked for its cgroup has none, so it is in no view while it is called
	// alive; it is met when it has ended.
	for i := range snap.Containers {
		if c := &snap.Containers[i]; c.Alive() && c.Cgroup.Path() != "" {
			known[key{runtime: c.Runtime, id: c.ID}] = c.Started
		}
	}
	m.met = known
	return out
}

// remember gives those of before and now whose time is not over, with the exit codes that snap tells. Of a container that
// was restarted only the last life is shown: two would be one series twice, for which a scraper refuses the page. The lives
// before it are there for the history, if there is one: a container that is restarted every second has many in a minute.
func (m *Metrics) remember(before, now []*ended, snap *container.Snapshot, at time.Time) []*ended {
	var out []*ended
	seen := map[string]bool{}
	for _, e := range slices.Backward(append(before[:len(before):len(before)], now...)) {
		labels := e.slot.labels.String()
		past := seen[labels]
		if at.After(e.kept) || past && m.history == nil || len(out) == mostEnded {
			continue
		}
		seen[labels] = true
		if e.exit == nil || past != e.past {
			c := *e
			if c.past = past; c.exit == nil {
				c.exit = exitOf(e.slot, snap)
			}
			e = &c
		}
		out = append(out, e)
	}
	slices.Reverse(out)
	return out
}

func exitOf(s *slot, snap *container.Snapshot) *int {
	if c := lastOf(s, snap); c != nil {
		return &c.ExitCode
	}
	return nil
}

// lastOf is what snap says of s's end; nil while it says nothing.
func lastOf(s *slot, snap *container.Snapshot) *container.Container {
	told := func(c *container.Container) bool {
		return c.Runtime == s.runtime && c.ID == s.id && c.Started.Equal(s.started) && (c.State == container.Exited || c.State == container.Stopping)
	}
	for i := range snap.Containers {
		if c := &snap.Containers[i]; told(c) && c.State == container.Exited {
			return c
		}
	}
	for i := range snap.Gone {
		if c := &snap.Gone[i].Container; told(c) {
			return c
		}
	}
	return nil
}
