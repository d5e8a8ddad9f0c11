package metrics

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/machine"
)

// page is everything that one scrape found.
type page struct {
	at       time.Time
	all      []*slot   // the view's
	slots    int       // of the view: how many containers could have been read
	readings []reading // in the view's order, without those that were gone or not read in time
	net      []netReading
	sockets  []socketReading
	ended    []*ended
	advised  []advised

	machine       machine.Facts
	machineLabels *expo.Labels
}

// reading is what one container showed.
type reading struct {
	slot  *slot
	stats *cgroup.Stats
}

// scratch is memory that scrapes use one after the other.
type scratch struct {
	page    page
	results []result
	encode  encode
	links   []byte // what a dump of link statistics works in
	opened  uint64 // how many files had been opened for one read at the last scrape
	short   bool   // that was said
}

// result is where a reader puts what it found. The page takes it only once state says that it is complete.
type result struct {
	stats cgroup.Stats
	state atomic.Int32
}

const (
	pending int32 = iota // not begun, or not back yet
	read                 // stats is complete
	nothing              // there is nothing to show: gone, or a panic
)

// gather reads everything, within the time budget.
func (m *Metrics) gather() *page {
	v := m.current()
	began := time.Now()
	deadline := began.Add(m.cfg.Timeout)
	p := &m.scratch.page
	p.at, p.slots = m.deps.Now(), len(v.slots)
	p.ended, p.all = v.ended, v.slots

	p.net, p.sockets = p.net[:0], p.sockets[:0]
	if !m.scratch.encode.exclude["sockets"] {
		p.sockets = m.readSockets(v, deadline, p.sockets)
	}
	if !m.scratch.encode.exclude["network"] {
		p.net = m.readLinks(v, deadline, p.net)
	}
	m.cost.phase("links", began)

	began = time.Now()
	p.readings = m.readAll(v.slots, deadline, p.readings[:0])
	m.cost.phase("cgroups", began)
	m.sayOpened()

	began = time.Now()
	facts, errs := m.machine.Read()
	for _, err := range errs {
		m.cost.failed("machine").Inc()
		m.deps.Log.Debug("machine facts could not be read", "err", err)
	}
	p.machine = facts
	p.completeRoot()
	labels := expo.AppendLabel(nil, "boot_id", facts.BootID)
	labels = expo.AppendLabel(labels, "machine_id", facts.MachineID)
	p.machineLabels = expo.NewLabels(expo.AppendLabel(labels, "system_uuid", facts.SystemUUID))
	m.cost.phase("machine", began)
	return p
}

// completeRoot gives the root cgroup what the kernel does not show there: the machine's memory is its limit. On v2 its use
// is what v1 shows there, anonymous memory and the page cache, and its swap is the machine's, as cAdvisor has both: the
// kubelet calls that the node's use, and dashboards set it beside the containers'.
func (p *page) completeRoot() {
	for i := range p.readings {
		r := &p.readings[i]
		if !r.slot.root {
			continue
		}
		m := &r.stats.Memory
		if !m.Usage.Known && m.RSS.Known && m.Cache.Known {
			m.Usage = cgroup.Known(m.RSS.N + m.Cache.N)
		}
		if total, free := p.machine.SwapBytes, p.machine.SwapFreeBytes; !m.Swap.Known && total != nil && free != nil {
			m.Swap = cgroup.Known(*total - min(*total, *free))
		}
		for to, from := range map[*cgroup.Value]*uint64{&m.Limit: p.machine.MemoryBytes, &m.SwapLimit: p.machine.SwapBytes} {
			if from != nil {
				*to = cgroup.Known(*from)
			}
		}
	}
}

// readAll reads the cgroup of each slot, on as many threads as may run at once, and returns at the deadline with what
// there is by then.
func (m *Metrics) readAll(slots []*slot, deadline time.Time, into []reading) []reading {
	results := m.scratch.results
	if len(results) < len(slots) {
		results = make([]result, len(slots)+len(slots)/4)
	}
	m.scratch.results = nil
	for i := range slots {
		results[i].state.Store(pending)
	}

	// The deadline is the page's own: others may wait for it, so it does not end with one request.
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(len(slots), runtime.GOMAXPROCS(0), 4) {
		workers.Go(func() {
			w := newWorker(m)
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(slots) {
					return
				}
				w.one(ctx, slots[i], &results[i])
			}
		})
	}
	finished := make(chan struct{})
	go func() { workers.Wait(); close(finished) }()
	select {
	case <-finished:
		m.scratch.results = results
	case <-ctx.Done():
		// A reader may hang in the kernel. It cannot be called back, so it is left behind with its memory; its slot
		// stays busy, so the next scrape passes it over and does not send another after it.
	}

	for i, s := range slots {
		switch results[i].state.Load() {
		case read:
			into = append(into, reading{s, &results[i].stats})
		case pending:
			m.cost.leftOut.Inc()
		}
	}
	return into
}

// worker reads one container after the other.
type worker struct {
	m      *Metrics
	buf    cgroup.Buffer
	slot   *slot
	result *result
	read   func(context.Context) error // reads slot into result; made once, because a closure is an allocation
}

func newWorker(m *Metrics) *worker {
	w := &worker{m: m}
	w.read = func(context.Context) error { return w.slot.reader.Read(&w.buf, &w.result.stats) }
	return w
}

// one reads one container. It says what went wrong once when that begins and once when it ends.
func (w *worker) one(ctx context.Context, s *slot, r *result) {
	if !s.life.busy.TryLock() {
		return
	}
	defer s.life.busy.Unlock()
	w.slot, w.result = s, r
	state := read
	err := agent.Go(ctx, w.read)
	crash, crashed := errors.AsType[*agent.PanicError](err)
	switch {
	case errors.Is(err, cgroup.ErrGone):
		w.m.cost.gone.Inc()
		state = nothing
	case crashed:
		w.m.cost.failed("panic").Inc()
		w.m.deps.Log.Error("reading a cgroup panicked", "container", s.id, "err", err, "stack", string(crash.Stack))
		state = nothing
	case err != nil:
		w.m.cost.failed("cgroup").Inc()
		if !s.life.failed {
			w.m.deps.Log.Warn("part of a cgroup could not be read", "container", s.id, "cgroup", s.key.path, "err", err)
		}
		s.life.failed = true
	case s.life.failed:
		w.m.deps.Log.Info("cgroup can be read again", "container", s.id, "cgroup", s.key.path)
		s.life.failed = false
	}
	r.state.Store(state)
}
