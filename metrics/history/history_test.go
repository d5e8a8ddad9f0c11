package history

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/metrics/cgroup"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// burner is a container of a test.
type burner struct {
	name    string
	started time.Time
	cpu     time.Duration // used so far
	memory  uint64
	ended   time.Time
	unread  bool
}

func (b burner) sample(now time.Time) Sample {
	s := Sample{
		Who:  Who{Runtime: "containerd", ID: container.ID(b.name), Name: b.name},
		Life: b.name + b.started.Format("@150405"), At: now, Started: b.started, Read: !b.unread,
	}
	if b.unread {
		if s.Ended = !b.ended.IsZero(); s.Ended {
			s.At = b.ended
		}
		return s
	}
	s.Total[CPU] = cgroup.Known(uint64(b.cpu))
	s.Level.Memory = cgroup.Known(b.memory)
	if !b.ended.IsZero() {
		s.Ended, s.At = true, b.ended
		s.Level.Peak, s.Level.Memory = s.Level.Memory, cgroup.Known(0)
	}
	return s
}

// world is a history over containers that a test makes, with a clock that the test moves.
type world struct {
	*History
	t       *testing.T
	dir     string
	now     time.Time
	burners []burner
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), now: noon}
	w.start()
	return w
}

// start makes a new agent on what the former one left, which was killed with -9.
func (w *world) start() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(new(strings.Builder), nil))
	dir, err := state.Open(w.dir, log)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := DefaultConfig()
	w.History = New(cfg, Deps{
		State: dir, Stats: new(stat.Registry), Now: func() time.Time { return w.now },
		Samples: func(context.Context) ([]Sample, error) {
			var out []Sample
			for _, b := range w.burners {
				out = append(out, b.sample(w.now))
			}
			return out, nil
		},
	})
}

// pass lets so much time pass and takes a sample.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.now = w.now.Add(d)
	if err := w.Sample(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) row(since time.Time, name string) Row {
	w.t.Helper()
	r, err := w.Usage(since)
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.Name == name })
	if i < 0 {
		w.t.Fatalf("no row for %s in %+v", name, r)
	}
	return r.Rows[i]
}

func (w *world) check(since time.Time, name string, cpu, memory float64, missing ...string) {
	w.t.Helper()
	row := w.row(since, name)
	if got := zero(row.CPUSeconds); math.Abs(got-cpu) > 1e-6 {
		w.t.Errorf("%s used %v CPU seconds, want %v", name, got, cpu)
	}
	if got := row.MemoryByteSeconds; math.Abs(got-memory) > 1e-3 {
		w.t.Errorf("%s held %v byte-seconds, want %v", name, got, memory)
	}
	if !slices.Equal(row.Missing, missing) || row.Incomplete != (len(missing) > 0) {
		w.t.Errorf("%s lacks %q (incomplete %v), want %q", name, row.Missing, row.Incomplete, missing)
	}
}

func TestContainerIsAccountedFromItsStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "web", started: noon.Add(20 * time.Second), cpu: 4 * time.Second, memory: 100}}
	w.pass(time.Minute)
	w.burners[0].cpu, w.burners[0].memory = 10*time.Second, 300
	w.pass(time.Minute)
	w.check(noon, "web", 10, 40*100+60*200)
}

func TestContainerOlderThanTheHistoryIsMarked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.burners = []burner{{name: "old", started: noon.Add(-time.Hour), cpu: time.Hour, memory: 10}}
	w.pass(0)
	w.burners[0].cpu += 2 * time.Second
	w.pass(time.Minute)
	w.check(noon, "old", 2, 600, NoBegin)
}

func TestContainerThatLivedBetweenTwoSamplesIsAccountedByItsLastSample(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "job", started: noon.Add(10 * time.Second), ended: noon.Add(15 * time.Second), cpu: 3 * time.Second, memory: 1000}}
	for range 30 { // its last sample is shown again and again, over slots and days
		w.pass(time.Minute)
	}
	w.check(noon, "job", 3, 5*1000)
	if !w.row(noon, "job").Ended {
		t.Error("it is not said to have ended")
	}
}

func TestContainerThatEndedUnseenIsMarked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "lost", started: noon.Add(time.Second), cpu: time.Second, memory: 1}}
	w.pass(time.Minute)
	w.burners = nil
	w.pass(time.Minute)
	w.check(noon, "lost", 1, 59, NoEnd)
}

func TestContainerThatCouldNotBeReadForAMomentLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "slow", started: noon.Add(time.Second), cpu: time.Second, memory: 10}}
	w.pass(time.Minute)
	w.burners[0].unread = true
	w.pass(time.Minute)
	w.burners[0].unread, w.burners[0].cpu = false, 5*time.Second
	w.pass(time.Minute)
	w.check(noon, "slow", 5, 590+1200)
}

func TestNothingIsLostWhenTheAgentIsKilledAndBack(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{time.Minute, 2 * time.Hour} {
		w := newWorld(t)
		w.pass(0)
		w.burners = []burner{{name: "web", started: noon.Add(time.Second), cpu: time.Second, memory: 10}, {name: "gone", started: noon.Add(time.Second)}}
		w.pass(time.Minute)
		w.start()
		w.burners = append(w.burners[:1], burner{name: "new", started: w.now.Add(time.Second), cpu: 2 * time.Second, memory: 10})
		w.burners[0].cpu = 8 * time.Second
		w.pass(away)
		if away == time.Minute {
			w.check(noon, "web", 8, 590+600)
			w.check(noon, "new", 2, 590)
		} else {
			w.check(noon, "web", 8, 590, NoMemory)
			w.check(noon, "new", 2, 0, NoMemory)
		}
		w.check(noon, "gone", 0, 0, NoEnd)
		w.check(w.now.Add(-time.Second), "web", map[bool]float64{true: 8, false: 7}[away == time.Minute],
			map[bool]float64{true: 1190, false: 0}[away == time.Minute], map[bool][]string{false: {NoMemory}}[away == time.Minute]...)
	}
}

func TestCounterThatGoesBackwardsIsMarkedAndNeverNegative(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "odd", started: noon.Add(time.Second), cpu: 9 * time.Second}}
	w.pass(time.Minute)
	w.burners[0].cpu = time.Second
	w.pass(time.Minute)
	w.check(noon, "odd", 10, 0, Reset)
}

func TestUsageIsCountedFromTheSlotThatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "web", started: noon.Add(time.Second), memory: 1}}
	for range 60 { // 1 CPU second a minute, over six slots
		w.burners[0].cpu += time.Second
		w.pass(time.Minute)
	}
	w.check(noon.Add(30*time.Minute), "web", 30, 1800)
	w.check(noon, "web", 60, 3599)
	r, err := w.Usage(noon.Add(-24 * time.Hour))
	if err != nil || r.Whole || !r.From.Equal(noon) {
		t.Errorf("a time before the first record: %+v, %v", r, err)
	}
}

func TestOldFilesAreRemovedAndForeignOnesAreLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	foreign := filepath.Join(w.dir, "slot-notes.txt")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.pass(0)
	w.pass(10 * time.Minute)
	w.pass(20 * 24 * time.Hour)
	w.pass(10 * time.Minute)
	for _, name := range []string{"slot-20261121T120000Z.json", "day-2026-11-21.json"} {
		if _, err := os.Stat(filepath.Join(w.dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}

func TestTornFileCostsItsSlotOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "web", started: noon.Add(time.Second), memory: 1}}
	for range 25 {
		w.burners[0].cpu += time.Second
		w.pass(time.Minute)
	}
	torn := filepath.Join(w.dir, "slot-20261121T121000Z.json")
	if err := os.WriteFile(torn, []byte(`{"from":"2026`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.check(noon, "web", 15, 899)
}

func TestAdviceOutlivesTheAgentAndTheDay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	w.burners = []burner{{name: "web", started: noon.Add(time.Second), memory: 100 << 20}}
	for range 4 * 24 { // four days, half a core
		w.burners[0].cpu += 30 * time.Minute
		w.pass(time.Hour)
	}
	w.start()
	all, err := w.Advice()
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	a := all[0]
	if a.Samples != 4*24 || a.CPUSuggestion.Confidence != High {
		t.Errorf("%d samples, %+v", a.Samples, a.CPUSuggestion)
	}
	if math.Abs(a.CPU.P95-0.5) > 0.5*accuracy+1e-3 || a.CPUSuggestion.Limit < 0.6 || a.CPUSuggestion.Limit > 0.65 {
		t.Errorf("half a core: %+v, %+v", a.CPU, a.CPUSuggestion)
	}
	if got := a.MemorySuggestion.Limit; got != 120<<20 {
		t.Errorf("a memory limit of %v for 100 MiB", got)
	}
}

func TestContainerMadeAnewUnderItsNameIsOneSubject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	for i := range 100 {
		w.burners = []burner{{name: "web", started: w.now.Add(time.Second), cpu: time.Second, memory: uint64(i)}}
		w.pass(time.Minute)
	}
	if all, err := w.Advice(); err != nil || len(all) != 1 || all[0].Samples != 100 {
		t.Errorf("%d subjects, %v", len(all), err)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := Config{Headroom: math.NaN(), Interval: 0, Keep: 0, Slot: time.Minute}.Validate()
	for _, key := range []string{"headroom", "interval", "keep"} {
		if err == nil || !strings.Contains(err.Error(), "metrics.history."+key+": ") {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestRunSamplesAtFullMinutesAndWritesAtItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "day-2026-11-21.json")); err != nil {
		t.Error(err)
	}
}

// BenchmarkSample500 is one sample of 500 containers, the reading of cgroups not included. 0.1 % of a core is 60 ms of
// each minute, and the reading takes some 35 of them.
func BenchmarkSample500(b *testing.B) {
	samples := make([]Sample, 500)
	dir, err := state.Open(b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	now := noon
	h := New(DefaultConfig(), Deps{State: dir, Stats: new(stat.Registry), Now: func() time.Time { return now },
		Samples: func(context.Context) ([]Sample, error) { return samples, nil }})
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Minute)
		for i := range samples {
			samples[i] = burner{name: fmt.Sprintf("c%063d", i), started: noon.Add(-time.Hour), cpu: now.Sub(noon) / 10, memory: 64 << 20}.sample(now)
		}
		if err := h.Sample(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A last sample that was missed still tells that there was somebody: a row without figures says more than none.
func TestContainerThatWasNeverReadIsMarked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass(0)
	missed := burner{name: "missed", started: noon.Add(10 * time.Second), ended: noon.Add(11 * time.Second), unread: true}
	older := burner{name: "older", started: noon.Add(-time.Hour), ended: noon.Add(-time.Minute), unread: true} // before the history began
	w.burners = []burner{missed, older}
	for range 2 {
		w.pass(time.Minute)
	}
	w.check(noon, "missed", 0, 0, NoEnd)
	if row := w.row(noon, "missed"); row.CPUSeconds != nil || !row.Ended {
		t.Errorf("%+v", row)
	}
	if r, err := w.Usage(noon); err != nil || len(r.Rows) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// The agent is there, and its first sample comes at the next full minute: what starts meanwhile is known from its start.
func TestContainerThatStartsBeforeTheFirstSampleIsWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r, err := w.Usage(noon); err != nil || !r.From.IsZero() || len(r.Rows) != 0 {
		t.Errorf("before the first sample: %+v, %v", r, err)
	}
	w.burners = []burner{
		{name: "new", started: noon.Add(20 * time.Second), cpu: 5 * time.Second},
		{name: "old", started: noon.Add(-time.Hour), cpu: 7 * time.Second},
	}
	w.pass(time.Minute)
	w.check(noon, "new", 5, 0)
	w.check(noon, "old", 0, 0, NoBegin)
}
