package stat

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var part = Label{"part", "overlay"}

func TestSameNameAndLabelsAreOneCounter(t *testing.T) {
	t.Parallel()
	var r Registry
	a := r.Counter("fairlead_x_total", "help", part)
	a.Add(2)
	b := r.Counter("fairlead_x_total", "another help", part)
	b.Inc()
	if a != b || a.Value() != 3 {
		t.Errorf("two counters: %d and %d", a.Value(), b.Value())
	}
	if c := r.Counter("fairlead_x_total", "help", Label{"part", "metrics"}); c == a || c.Value() != 0 {
		t.Error("other labels gave the same counter")
	}
	if g := r.Gauge("fairlead_y", "help"); g != r.Gauge("fairlead_y", "help") {
		t.Error("two gauges")
	}
}

func TestLabelsDoNotRunIntoEachOther(t *testing.T) {
	t.Parallel()
	var r Registry
	if r.Counter("c", "", Label{"a", "bc"}) == r.Counter("c", "", Label{"ab", "c"}) {
		t.Error("a=bc and ab=c are one series")
	}
}

func TestFamiliesAreSortedAndHoldWhatWasRegistered(t *testing.T) {
	t.Parallel()
	var r Registry
	if got := r.Families(); len(got) != 0 {
		t.Errorf("an empty registry has %v", got)
	}
	r.Counter("fairlead_b_total", "B.", Label{"part", "z"}).Add(7)
	r.Counter("fairlead_b_total", "B.", Label{"part", "a"}).Inc()
	r.Gauge("fairlead_a_bytes", "A.").Set(-1.5)
	r.Func("fairlead_c", "C.", TypeGauge, func() float64 { return 1 })
	r.Func("fairlead_c", "C.", TypeGauge, func() float64 { return math.Pi })
	r.Gauge("fairlead_gone", "D.", part).Set(1)
	r.Forget("fairlead_gone", part)
	r.Forget("fairlead_gone", part)
	r.Forget("fairlead_never")
	want := []Family{
		{"fairlead_a_bytes", "A.", TypeGauge, []Sample{{nil, -1.5}}},
		{"fairlead_b_total", "B.", TypeCounter, []Sample{{[]Label{{"part", "a"}}, 1}, {[]Label{{"part", "z"}}, 7}}},
		{"fairlead_c", "C.", TypeGauge, []Sample{{nil, math.Pi}}},
	}
	if d := cmp.Diff(want, r.Families()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCallersLabelsMayBeUsedAgain(t *testing.T) {
	t.Parallel()
	var r Registry
	labels := []Label{{"part", "a"}}
	r.Counter("c", "", labels...)
	labels[0].Value = "b"
	if got := r.Families()[0].Samples[0].Labels[0].Value; got != "a" {
		t.Errorf("the series is now labelled %s", got)
	}
}

func TestCountersAreExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	var r Registry
	var stop atomic.Bool
	var scraper, wg sync.WaitGroup
	scraper.Go(func() {
		for !stop.Load() {
			r.Families()
		}
	})
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				r.Counter("c", "help", part).Inc()
				r.Gauge("g", "help").Set(1)
				r.Func("f", "help", TypeGauge, func() float64 { return 2 })
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	scraper.Wait()
	if n := r.Counter("c", "help", part).Value(); n != 8000 {
		t.Errorf("counted %d of 8000", n)
	}
	names := []string{}
	for _, f := range r.Families() {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"c", "f", "g"}) {
		t.Errorf("families %v", names)
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	var r Registry
	c, g := r.Counter("c", ""), r.Gauge("g", "")
	if n := testing.AllocsPerRun(100, func() { c.Inc(); g.Set(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSamplesThatAreMadeWhenAskedForComeAndGo(t *testing.T) {
	t.Parallel()
	var r Registry
	var now []Sample
	r.Each("fairlead_peers", "Peers.", TypeGauge, func() []Sample { return now })
	if got := r.Families(); len(got) != 0 {
		t.Fatalf("a family without samples: %+v", got)
	}
	now = []Sample{{Labels: []Label{{"peer", "web2"}}, Value: 1}}
	if got := r.Families(); len(got) != 1 || got[0].Samples[0].Value != 1 || got[0].Type != TypeGauge {
		t.Fatalf("%+v", got)
	}
}
