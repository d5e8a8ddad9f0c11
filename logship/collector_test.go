//go:build kernel

package logship

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// exported is what the collector's file exporter writes, one a line.
type exported struct {
	ResourceLogs []struct {
		Resource  struct{ Attributes []keyValue }
		ScopeLogs []struct{ LogRecords []exportedRecord }
	}
}

type exportedRecord struct {
	TimeUnixNano string
	Body         anyValue
	Attributes   []keyValue
}

type keyValue struct {
	Key   string
	Value anyValue
}

type anyValue struct {
	StringValue string
	KvlistValue *struct{ Values []keyValue }
}

// arrived gives for each record its line, and for the first all that is known of it.
func arrived(t *testing.T, path string) (lines []string, first map[string]string) {
	t.Helper()
	for _, one := range linesOf(path) {
		var e exported
		if err := json.Unmarshal([]byte(one), &e); err != nil {
			t.Fatalf("the collector wrote %.200q: %v", one, err)
		}
		for _, r := range e.ResourceLogs {
			for _, s := range r.ScopeLogs {
				for _, l := range s.LogRecords {
					lines = append(lines, l.Body.StringValue)
					if first == nil {
						first = map[string]string{"": l.TimeUnixNano}
						flatten(first, "", append(r.Resource.Attributes, l.Attributes...))
					}
				}
			}
		}
	}
	return lines, first
}

func flatten(into map[string]string, prefix string, pairs []keyValue) {
	for _, p := range pairs {
		if p.Value.KvlistValue != nil {
			flatten(into, prefix+p.Key+".", p.Value.KvlistValue.Values)
			continue
		}
		into[prefix+p.Key] = p.Value.StringValue
	}
}

// linesOf gives the lines that are whole.
func linesOf(path string) []string {
	all := lines(path)
	if n := len(all); n > 0 && !json.Valid([]byte(all[n-1])) {
		all = all[:n-1]
	}
	return all
}

func TestARealCollectorHasEachLineThroughItsRestart(t *testing.T) {
	for name, test := range map[string]struct {
		sink  func(otlp, loki, fluent string) SinkConfig
		quiet bool // the collector answers before the file has the records, and loses them when it ends then
		first map[string]string
	}{
		"OTLP": {
			sink: func(otlp, _, _ string) SinkConfig { return SinkConfig{Type: "otlp", URL: "http://" + otlp} },
			first: map[string]string{"host.name": "web1", "container.id": "c0ffee", "container.name": "shop", "container.runtime": "docker",
				"container.label.tier": "front", "log.iostream": "stdout"},
		},
		"Loki": {
			sink:  func(_, loki, _ string) SinkConfig { return SinkConfig{Type: "loki", URL: "http://" + loki} },
			first: map[string]string{"host": "web1", "id": "c0ffee", "name": "shop", "runtime": "docker", "stream": "stdout"},
		},
		"Fluent": {
			sink:  func(_, _, fluent string) SinkConfig { return SinkConfig{Type: "fluent", Address: "tcp://" + fluent} },
			quiet: true,
			first: map[string]string{"host": "web1", "id": "c0ffee", "name": "shop", "runtime": "docker", "stream": "stdout", "labels.tier": "front"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := hosttest.Collector(t)
			dir := t.TempDir()
			c := container.Container{ID: "c0ffee", Name: "shop", Runtime: "docker", State: container.Running,
				Labels: map[string]string{"tier": "front"}, Log: container.Log{Path: filepath.Join(dir, "0.log"), Format: container.CRI}}
			start := time.Now().UTC().Truncate(time.Microsecond)
			log := func(from, to int) {
				var b strings.Builder
				for i := from; i < to; i++ {
					at := start.Add(time.Duration(i) * time.Microsecond) // Loki keeps equal lines of one instant once
					fmt.Fprintf(&b, "%s stdout F ä\t\"quoted\" line %d\n", at.Format("2006-01-02T15:04:05.000000000Z"), i)
				}
				appendTo(t, c.Log.Path, b.String())
			}
			const n = 10_000
			log(0, n)
			conf := DefaultConfig()
			conf.Pins = filepath.Join(dir, "pins")
			sink := test.sink(r.Ports.OTLP, r.Ports.Loki, r.Ports.Fluent)
			sink.Name = "s"
			conf.Sinks = []SinkConfig{sink}
			s := run(t, dir, conf, newInventory(c))
			eventually(t, "the first lines", func() bool { return s.sink(0).Acked > 0 })
			written := func(n int) {
				if test.quiet {
					eventually(t, "the collector has written them", func() bool { got, _ := arrived(t, r.Logs); return len(got) >= n })
				}
			}
			written(n)
			if err := r.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			log(n, 2*n)
			eventually(t, "a try while the collector is away", func() bool { return s.sink(0).Failures > 0 })
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all lines are acknowledged", func() bool { return s.sink(0).Acked >= 2*n })
			s.stop()
			written(2 * n)
			if err := r.Stop(t.Context()); err != nil { // it writes what it has
				t.Fatal(err)
			}
			got, first := arrived(t, r.Logs)
			lost, doubled, what := tally(got, 2*n)
			t.Logf("%d lines, %d lost, %d doubled, %d owned up to", len(got), lost, doubled, s.sink(0).Doubled)
			if lost > 0 || doubled > int(s.sink(0).Doubled) || s.sink(0).Rejected > 0 {
				t.Errorf("%d lost, %d doubled, %d owned up to, %d rejected: %s", lost, doubled, s.sink(0).Doubled, s.sink(0).Rejected, what)
			}
			for _, line := range got {
				if !strings.HasPrefix(line, "ä\t\"quoted\" line ") {
					t.Fatalf("a line arrived as %.200q", line)
				}
			}
			if want := fmt.Sprint(start.UnixNano()); first[""] != want {
				t.Errorf("the first line is of %s, want %s", first[""], want)
			}
			for k, want := range test.first {
				if first[k] != want {
					t.Errorf("%s is %q, want %q, in %v", k, first[k], want, first)
				}
			}
		})
	}
}
