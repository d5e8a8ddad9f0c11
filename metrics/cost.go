package metrics

import (
	"time"

	"github.com/fairlead-dev/fairlead/agent/stat"
)

// cost is what scrapes cost and what they could not read. Everything is registered at once, so that a scrape takes no
// lock of the registry while it holds one of ours.
type cost struct {
	scrapes, leftOut, gone, dropped *stat.Counter
	samples, missed, oomKills       *stat.Counter
	containers, series              *stat.Gauge
	phases                          map[string]*stat.Gauge
	errors                          map[string]*stat.Counter
}

func (m *Metrics) register(r *stat.Registry) cost {
	c := cost{
		scrapes:    r.Counter("fairlead_metrics_scrapes_total", "Scrapes done. Requests that come at once share one."),
		leftOut:    r.Counter("fairlead_metrics_left_out_total", "Containers left out of a page because they could not be read within metrics.timeout."),
		gone:       r.Counter("fairlead_metrics_gone_total", "Containers whose cgroup was removed before the inventory said so."),
		dropped:    r.Counter("fairlead_metrics_series_dropped_total", "Series left out of pages because of metrics.series_per_container or metrics.series."),
		samples:    r.Counter("fairlead_metrics_last_samples_total", "Containers whose last sample was read at their end."),
		missed:     r.Counter("fairlead_metrics_last_samples_missed_total", "Containers whose cgroup was removed before their last sample could be read, or that were removed before anybody saw whether they ran."),
		oomKills:   r.Counter("fairlead_metrics_ended_oom_kills_total", "Processes killed for want of memory in containers that have ended, as their last samples say."),
		containers: r.Gauge("fairlead_metrics_containers", "Containers that the last scrape read."),
		series:     r.Gauge("fairlead_metrics_series", "Series on the page before this one."),
		phases:     map[string]*stat.Gauge{},
		errors:     map[string]*stat.Counter{},
	}
	for _, phase := range []string{"links", "cgroups", "machine", "encode", "zstd"} {
		c.phases[phase] = r.Gauge("fairlead_metrics_scrape_seconds",
			"Time that each phase of a scrape took: this one's for what was read, the one's before for encode, gzip included, and zstd.",
			stat.Label{Name: "phase", Value: phase})
	}
	for _, source := range []string{"cgroup", "links", "machine", "mounts", "panic", "sockets"} {
		c.errors[source] = r.Counter("fairlead_metrics_read_errors_total",
			"Reads that failed or gave text that could not be understood; the log names the file.",
			stat.Label{Name: "source", Value: source})
	}
	r.Func("fairlead_metrics_descriptors", "Cgroup files kept open between scrapes.", stat.TypeGauge, m.kept)
	r.Func("fairlead_metrics_files_opened_total",
		"Cgroup files opened for a single read because the descriptor budget was used up: such a scrape costs four times as much.",
		stat.TypeCounter, m.opened)
	return c
}

func (c *cost) phase(name string, began time.Time) { c.phases[name].Set(time.Since(began).Seconds()) }

func (c *cost) failed(source string) *stat.Counter { return c.errors[source] }

// sayOpened says once that the descriptor budget is used up, and once that it suffices again.
func (m *Metrics) sayOpened() {
	opened := uint64(m.opened())
	more := opened - m.scratch.opened
	m.scratch.opened = opened
	switch {
	case more > 0 && !m.scratch.short:
		m.deps.Log.Warn("descriptor budget is used up: cgroup files are opened for each scrape, which costs four times as much; raise the limit of open files (LimitNOFILE)", "files", more)
		m.scratch.short = true
	case more == 0 && m.scratch.short:
		m.deps.Log.Info("descriptor budget suffices again")
		m.scratch.short = false
	}
}

func (m *Metrics) kept() float64 {
	if t := m.currentTree(); t != nil {
		return float64(t.Kept())
	}
	return 0
}

func (m *Metrics) opened() float64 {
	if t := m.currentTree(); t != nil {
		return float64(t.Opened())
	}
	return 0
}
