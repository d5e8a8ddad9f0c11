package logship

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestALineThatIsRefusedForGoodIsKeptWithItsReasonAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := &sinktest.HTTP{Decode: func(body []byte) (out []string, err error) {
		for l := range bytes.Lines(body) {
			var doc struct{ Message string }
			if err := json.Unmarshal(l, &doc); err != nil {
				return nil, err
			}
			out = append(out, doc.Message)
		}
		return out, nil
	}}
	r.Start(t)
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "post", Type: "ndjson", URL: r.URL}}}
	writeFile(t, log, "line 0\n"+sinktest.Poison+"\nline 1\n")
	s := run(t, dir, cfg, newInventory())
	eventually(t, "the good lines", func() bool { return s.sink(0).Acked == 3 && s.sink(0).Lag == 0 })
	s.stop()
	if got := strings.Join(r.Received(), "|"); got != "line 0|line 1" {
		t.Errorf("arrived: %s", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "state/dead-post.ndjson"))
	var letter struct {
		Rejected, Reason string
		Record           struct{ Message, Path string }
	}
	if err != nil || json.Unmarshal(text, &letter) != nil {
		t.Fatalf("dead letters: %s, %v", text, err)
	}
	if letter.Record.Message != sinktest.Poison || letter.Record.Path != log || !strings.Contains(letter.Reason, "400") || s.sink(0).Rejected != 1 {
		t.Errorf("%+v, %d counted", letter, s.sink(0).Rejected)
	}
}

func TestTheDeadLetterFileIsBounded(t *testing.T) {
	t.Parallel()
	d := &deadLetters{path: filepath.Join(t.TempDir(), "dead"), limit: 200}
	for range 20 {
		if err := d.add([]sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte("x")}}, []sink.Rejection{{Reason: "bad"}, {Index: 9}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{d.path, d.path + ".1"} {
		if fi, err := os.Stat(p); err != nil || fi.Size() > 400 {
			t.Errorf("%s: %v, %v", p, fi, err)
		}
	}
}

func TestADeadLetterThatACrashHasTornDoesNotSpoilTheNext(t *testing.T) {
	t.Parallel()
	d := &deadLetters{path: filepath.Join(t.TempDir(), "dead")}
	writeFile(t, d.path, `{"rejected":"2026-11-21T09:20:00Z","rea`)
	keep := func() {
		t.Helper()
		if err := d.add([]sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte("x")}}, []sink.Rejection{{Reason: "bad"}}); err != nil {
			t.Fatal(err)
		}
	}
	keep()
	keep()
	got := lines(d.path)
	if len(got) != 3 || !json.Valid([]byte(got[1])) || !json.Valid([]byte(got[2])) {
		t.Errorf("%d lines: %q", len(got), got)
	}
}
