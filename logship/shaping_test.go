package logship

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/shape"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// texts gives what came after the fourth space of each line of a file sink, joined lines as the sink wrote them.
func texts(path string) []string {
	var out []string
	for _, l := range lines(path) {
		if parts := strings.SplitN(l, " ", 5); len(parts) == 5 && strings.HasPrefix(l, "20") {
			out = append(out, parts[4])
		} else if n := len(out); n > 0 {
			out[n-1] += "\n" + l
		}
	}
	return out
}

func shaped1(dir string, rules ...shape.Rule) (Config, string) {
	out := filepath.Join(dir, "f")
	return Config{Rules: rules, Sinks: []SinkConfig{{Name: "f", Type: "file", Path: out}}}, out
}

func counted(t *testing.T, s ship, name string) float64 {
	t.Helper()
	for _, f := range s.deps.Stat.Families() {
		for _, m := range f.Samples {
			if key := f.Name + labelled(m.Labels); key == name {
				return m.Value
			}
		}
	}
	t.Fatalf("no series %s", name)
	return 0
}

func labelled(ls []stat.Label) string {
	var b strings.Builder
	for _, l := range ls {
		fmt.Fprintf(&b, " %s=%s", l.Name, l.Value)
	}
	return b.String()
}

func TestARecordThatWasBeingJoinedAtAStopIsReadAgainFromItsFirstLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	cfg, out := shaped1(dir, shape.Rule{Multiline: "^start", Timeout: time.Minute})
	cfg.Files = []File{{Path: log}}
	writeFile(t, log, "start 1\n one\nstart 2\n two\n")
	s := run(t, dir, cfg, newInventory())
	eventually(t, "the first record", func() bool { return len(texts(out)) == 1 })
	s.stop()
	appendTo(t, log, " deux\nstart 3\n")
	s = run(t, dir, cfg, newInventory())
	eventually(t, "the second record", func() bool { return len(texts(out)) == 2 })
	s.stop()
	if got := strings.Join(texts(out), "|"); got != "start 1\n one|start 2\n two\n deux" {
		t.Errorf("got %q", got)
	}
}

func TestARecordComesOutAfterItsTimeoutWithoutAnotherLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "j", Name: "j", Runtime: "docker", State: container.Running, Labels: map[string]string{"fairlead.logs.multiline": "java"},
		Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
	cfg, out := shaped1(dir)
	writeFile(t, c.Log.Path, cri("java.lang.Error: x")+cri("\tat a.B(C.java:1)"))
	s := run(t, dir, cfg, newInventory(c))
	eventually(t, "the record", func() bool { return len(texts(out)) == 1 })
	eventually(t, "nothing behind", func() bool { return s.sink(0).Lag == 0 })
	if got := texts(out)[0]; got != "java.lang.Error: x\n\tat a.B(C.java:1)" {
		t.Errorf("got %q", got)
	}
	if n := counted(t, s, "fairlead_logship_joined_lines_total sink=f"); n != 1 {
		t.Errorf("%v joined lines counted, want 1", n)
	}
}

func TestDroppedRecordsMoveThePosition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	cfg, out := shaped1(dir, shape.Rule{Drop: []shape.Filter{{Match: "noise"}}})
	cfg.Files = []File{{Path: log}}
	writeFile(t, log, strings.Repeat("noise\n", 1000))
	s := run(t, dir, cfg, newInventory())
	eventually(t, "all of it is settled", func() bool {
		return s.sink(0).Lag == 0 && counted(t, s, "fairlead_logship_dropped_records_total sink=f reason=rule") == 1000
	})
	appendTo(t, log, "signal\n"+strings.Repeat("noise\n", 10))
	eventually(t, "the line between", func() bool { return len(texts(out)) == 1 && s.sink(0).Lag == 0 })
	s.stop()
	appendTo(t, log, "noise\nsignal 2\n")
	s = run(t, dir, cfg, newInventory())
	eventually(t, "the line after", func() bool { return len(texts(out)) == 2 })
	if n := counted(t, s, "fairlead_logship_dropped_records_total sink=f reason=rule"); n != 1 {
		t.Errorf("%v lines were dropped after the restart, want the one that is new", n)
	}
}

func TestWhatABudgetDroppedIsToldBeforeTheAgentStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := container.Container{ID: "b", Name: "b", Runtime: "docker", State: container.Running, Labels: map[string]string{"fairlead.logs.rate": "5/s"},
		Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
	cfg, out := shaped1(dir)
	writeFile(t, c.Log.Path, strings.Repeat(cri("line"), 100))
	s := run(t, dir, cfg, newInventory(c))
	eventually(t, "all is settled", func() bool { return len(texts(out)) == 5 && s.sink(0).Lag == 0 })
	s.stop()
	got := texts(out)
	if len(got) != 6 || !strings.Contains(got[5], "95 records of this log were dropped") || !strings.Contains(got[5], "95 by the budget of 5/s") {
		t.Errorf("got %q", got)
	}
}

func TestALogGoesToTheSinksOfItsRuleOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := func(id string) container.Container {
		return container.Container{ID: container.ID(id), Name: id, Runtime: "docker", State: container.Running, Log: container.Log{Path: filepath.Join(dir, id+".log"), Format: container.CRI}}
	}
	a, b, c := log("a"), log("b"), log("c")
	b.Labels = map[string]string{"fairlead.logs.sinks": "two, nowhere"}
	cfg := Config{Rules: []shape.Rule{{Match: shape.Match{Name: "a"}, Sinks: []string{"one"}}}, Sinks: []SinkConfig{
		{Name: "one", Type: "file", Path: filepath.Join(dir, "one")}, {Name: "two", Type: "file", Path: filepath.Join(dir, "two")}}}
	for _, c := range []container.Container{a, b, c} {
		writeFile(t, c.Log.Path, cri("from "+c.Name))
	}
	inv := newInventory(a, b, c)
	s := run(t, dir, cfg, inv)
	sorted := func(name string) string {
		got := texts(filepath.Join(dir, name))
		slices.Sort(got)
		return strings.Join(got, ",")
	}
	eventually(t, "both sinks have theirs", func() bool { return sorted("one") == "from a,from c" && sorted("two") == "from b,from c" })
	eventually(t, "nothing is behind", func() bool { return s.sink(0).Lag+s.sink(1).Lag == 0 })
	inv.publish(nil, []container.Tombstone{{Container: a}, {Container: b}, {Container: c}})
	eventually(t, "all streams are closed", func() bool { return len(s.Streams()) == 0 })
}

// Records of both streams are joined while the agent is stopped again and again: each arrives once, whole.
func TestASinkThatALogDoesNotGoToLosesNothingOfIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, out := filepath.Join(dir, "a.log"), filepath.Join(dir, "f")
	cfg := Config{Files: []File{{Path: log}},
		Rules: []shape.Rule{{Match: shape.Match{Path: "*a.log"}, Sinks: []string{"f"}}},
		Sinks: []SinkConfig{{Name: "f", Type: "file", Path: out}, {Name: "other", Type: "file", Path: out + "2"}}}
	writeFile(t, log, "line 0\nline 1\n")
	s := run(t, dir, cfg, newInventory())
	eventually(t, "the first lines", func() bool { return s.sink(0).Acked == 2 })
	s.stop()
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "pins")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, log, "line 2\n")
	s = run(t, dir, cfg, newInventory())
	eventually(t, "the new file", func() bool { return s.sink(0).Acked == 1 })
	for i := range 2 {
		if k := s.sink(i); k.Lost != 0 {
			t.Errorf("sink %s: %d bytes lost", k.Name, k.Lost)
		}
	}
}

func TestJoinedRecordsOfBothStreamsSurviveRestarts(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	c := container.Container{ID: "m", Name: "m", Runtime: "docker", State: container.Running, Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
	cfg, out := shaped1(dir, shape.Rule{Multiline: "^start", Timeout: time.Minute}, shape.Rule{Drop: []shape.Filter{{Match: "drop"}}})
	var open [2]string
	var want []string
	n := 0
	for range 8 {
		var b strings.Builder
		for range 1 + r.IntN(60) {
			std := r.IntN(2)
			text := fmt.Sprintf(" more %d", n)
			if open[std] == "" || r.IntN(3) == 0 {
				if open[std] != "" && !strings.Contains(open[std], "drop") {
					want = append(want, open[std])
				}
				open[std], text = "", fmt.Sprintf("start %d", n)
				if r.IntN(4) == 0 {
					text += " drop"
				}
			}
			n++
			open[std] = strings.TrimPrefix(open[std]+"\n"+text, "\n")
			b.WriteString(strings.Replace(cri(text), "stdout", []string{"stdout", "stderr"}[std], 1))
		}
		writeFile(t, c.Log.Path, b.String())
		s := run(t, dir, cfg, newInventory(c))
		eventually(t, "all that is complete", func() bool { return len(texts(out)) >= len(want) })
		s.stop()
		if got := strings.Join(texts(out), "|"); got != strings.Join(want, "|") {
			t.Fatalf("seed %d: got\n%q\nwant\n%q", seed, got, strings.Join(want, "|"))
		}
	}
}

func TestALineThatNoRuleAppliesToCostsNothing(t *testing.T) {
	s := &stream{key: "k", src: ledger.Source{Format: container.CRI}}
	s.origin.Store(&sink.Origin{Host: "web1"})
	c := &cursor{stream: s, sink: newShipper("f", nil, nil, nil, slog.Default()), dec: decode.New(container.CRI, decode.MaxLine), gen: &tail.Generation{Seq: 1}}
	s.cursors = []*cursor{c}
	set, err := shape.Compile([]shape.Rule{{Match: shape.Match{Name: "another"}, Drop: []shape.Filter{{Match: "."}}}})
	if err != nil {
		t.Fatal(err)
	}
	chain, _ := set.For(s.origin.Load())
	s.chain.Store(chain)
	b := newBatch()
	b.records, b.marks = make([]sink.Record, 0, batchRecords), make([]mark, 0, batchRecords)
	raw := []byte(strings.TrimSuffix(cri("some words"), "\n"))
	if n := testing.AllocsPerRun(100, func() {
		c.reshape(b, 1)
		for range 50 {
			c.line(b, raw, 0, 1, 1)
		}
		c.after(b, 1, true)
		b.reset()
	}); n > 0 {
		t.Errorf("%v allocations for 50 lines, want none", n)
	}
}

func TestProblemsOfRulesAreNamedWithTheirKeys(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Rules = []shape.Rule{{Multiline: "("}, {Sinks: []string{"nobody"}, Rate: "x"}}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range []string{`logship.rules[0].multiline: "(" is not valid, expected a regular expression`, `logship.rules[1].sinks[0]: "nobody" is not valid, expected the name`,
		`logship.rules[1].rate: "x" is not valid, expected a number of records and /s`} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no problem is %s; got\n%v", w, err)
		}
	}
}
