// Package stat keeps the agent's own counters: what each part did, refused, lost and spent.
//
// Parts register here and metrics/ writes them on /metrics; so a part is measured without importing the part that
// exposes it. Names follow fairlead_<part>_<noun>_<unit>[_total]. Nothing is stored: counters start at 0 with the agent.
package stat

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Type is a metric's type as OpenMetrics names it.
type Type string

// The types.
const (
	TypeCounter Type = "counter"
	TypeGauge   Type = "gauge"
)

// Label is one name=value pair of a series.
type Label struct{ Name, Value string }

// Counter only grows. Its methods are safe for concurrent use and do not allocate.
type Counter struct{ v atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n uint64) { c.v.Add(n) }

// Inc adds one.
func (c *Counter) Inc() { c.v.Add(1) }

// Value gives the sum so far.
func (c *Counter) Value() uint64 { return c.v.Load() }

// Gauge goes up and down. Its methods are safe for concurrent use and do not allocate.
type Gauge struct{ bits atomic.Uint64 }

// Set stores v.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

// Value gives what was stored last.
func (g *Gauge) Value() float64 { return math.Float64frombits(g.bits.Load()) }

// Registry holds the agent's counters. The zero value is ready; all methods are safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	families map[string]*family
}

type family struct {
	help   string
	typ    Type
	series map[string]series // by rendered labels
	each   func() []Sample   // nil: series
}

type series struct {
	labels  []Label
	counter *Counter
	gauge   *Gauge
	read    func() float64
}

func (s series) value() float64 {
	switch {
	case s.counter != nil:
		return float64(s.counter.Value())
	case s.gauge != nil:
		return s.gauge.Value()
	}
	return s.read()
}

// Counter gives the counter with this name and these labels, made on first use: calling it again gives the same one,
// so a part that is restarted goes on counting.
func (r *Registry) Counter(name, help string, labels ...Label) *Counter {
	s := r.series(name, help, TypeCounter, labels, func() series { return series{counter: new(Counter)} })
	return s.counter
}

// Gauge gives the gauge with this name and these labels, made on first use.
func (r *Registry) Gauge(name, help string, labels ...Label) *Gauge {
	s := r.series(name, help, TypeGauge, labels, func() series { return series{gauge: new(Gauge)} })
	return s.gauge
}

// Func registers a value that is read when it is asked for. read must be quick and safe for concurrent use; a second
// call with the same name and labels replaces it.
func (r *Registry) Func(name, help string, typ Type, read func() float64, labels ...Label) {
	r.Forget(name, labels...)
	r.series(name, help, typ, labels, func() series { return series{read: read} })
}

// Each registers a family whose samples are made when they are asked for: for what comes and goes, and of which there
// may be thousands. read must be quick and safe for concurrent use; a second call with the same name replaces it.
func (r *Registry) Each(name, help string, typ Type, read func() []Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.families == nil {
		r.families = map[string]*family{}
	}
	r.families[name] = &family{help: help, typ: typ, each: read}
}

// Forget removes one series. It succeeds when there is none.
func (r *Registry) Forget(name string, labels ...Label) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.families[name]; f != nil {
		delete(f.series, render(labels))
	}
}

func (r *Registry) series(name, help string, typ Type, labels []Label, make_ func() series) series {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.families == nil {
		r.families = map[string]*family{}
	}
	f := r.families[name]
	if f == nil {
		f = &family{help: help, typ: typ, series: map[string]series{}}
		r.families[name] = f
	}
	k := render(labels)
	s, ok := f.series[k]
	if !ok {
		s = make_()
		s.labels = slices.Clone(labels)
		f.series[k] = s
	}
	return s
}

func render(labels []Label) string {
	var b strings.Builder
	for _, l := range labels {
		b.WriteString(l.Name)
		b.WriteByte(0)
		b.WriteString(l.Value)
		b.WriteByte(0)
	}
	return b.String()
}

// Family is all series of one name.
type Family struct {
	Name, Help string
	Type       Type
	Samples    []Sample
}

// Sample is one series and its value.
type Sample struct {
	Labels []Label
	Value  float64
}

// Families gives everything registered, sorted by name and labels.
func (r *Registry) Families() []Family {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Family, 0, len(r.families))
	for name, f := range r.families {
		fam := Family{Name: name, Help: f.help, Type: f.typ}
		for _, k := range sortedKeys(f.series) {
			s := f.series[k]
			fam.Samples = append(fam.Samples, Sample{s.labels, s.value()})
		}
		if f.each != nil {
			fam.Samples = f.each()
		}
		if len(fam.Samples) > 0 {
			out = append(out, fam)
		}
	}
	slices.SortFunc(out, func(a, b Family) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
