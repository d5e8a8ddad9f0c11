package logship

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// readAll reads until the cursor waits and gives the lines.
func readAll(t *testing.T, c *cursor) []string {
	t.Helper()
	b := newBatch()
	for range 100 {
		o, err := c.read(b, 1)
		if err != nil {
			t.Fatal(err)
		}
		if o == wait {
			break
		}
	}
	var out []string
	for _, r := range b.records {
		out = append(out, string(r.Line))
	}
	return out
}

func TestAFileThatGrewBeyondTheOffsetAgainAfterTruncationIsReadAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.log")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("first life\n")
	s := &stream{src: ledger.Source{Root: tail.Host, Path: path, Format: container.Plain, Origin: &sink.Origin{}}, nudge: func() {}}
	s.origin.Store(s.src.Origin)
	s.series = tail.NewSeries(tail.Host, path, nil, false, func(tail.Identity) bool { return false }, nil)
	t.Cleanup(func() { s.series.Close(true) })
	c := &cursor{stream: s, sink: newShipper("x", nil, nil, nil, slog.New(slog.DiscardHandler)), dec: decode.New(container.Plain, decode.MaxLine)}
	s.cursors = []*cursor{c}
	if _, err := s.series.Look(); err != nil {
		t.Fatal(err)
	}
	c.start(ledger.Position{}, false, nil)
	if got := strings.Join(readAll(t, c), "|"); got != "first life" {
		t.Fatalf("got %q", got)
	}
	// Nobody looked while it was short: only the bytes before the offset tell.
	write("second life, which is longer\nand goes on\n")
	if got := strings.Join(readAll(t, c), "|"); got != "second life, which is longer|and goes on" {
		t.Errorf("got %q", got)
	}
}
