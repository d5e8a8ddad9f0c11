package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestARotatedFileThatIsStillWrittenToIsReadOnAlsoOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, out := filepath.Join(dir, "a.log"), filepath.Join(dir, "out/f")
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "f", Type: "file", Path: out}}}
	old, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	n := 0
	both := func() { // the old worker and the new one, in turns
		fmt.Fprintf(old, "line %d\n", n)
		appendTo(t, log, fmt.Sprintf("line %d\n", n+1))
		n += 2
	}
	fmt.Fprintf(old, "line %d\n", n)
	n++
	s := hurried(t, dir, cfg, newInventory())
	arrived := func() bool { return len(lines(out)) >= n }
	eventually(t, "the first line", arrived)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, fmt.Sprintf("line %d\n", n))
	n++
	eventually(t, "the next generation", arrived)
	time.Sleep(2 * quiet) // long after the cursor has gone on
	both()
	eventually(t, "late lines", arrived)
	fmt.Fprint(old, "line ") // half a line
	s.stop()
	fmt.Fprintf(old, "%d\n", n)
	n++
	both()
	if err := os.Remove(log + ".1"); err != nil { // kept by its pin
		t.Fatal(err)
	}
	s = hurried(t, dir, cfg, newInventory())
	eventually(t, "what was written while the agent was down", arrived)
	both()
	eventually(t, "late lines after the restart", arrived)
	fmt.Fprintf(old, "line %d", n) // its last line has no end
	n++
	_ = old.Close()
	eventually(t, "the line without an end", arrived)
	eventually(t, "the old generation is let go of", func() bool { return s.Streams()[0].Kept == 1 })
	if lost, doubled, what := tally(lines(out), n); lost+doubled > 0 || s.sink(0).Lost > 0 {
		t.Errorf("%d lost, %d doubled, %d bytes owned up to: %s", lost, doubled, s.sink(0).Lost, what)
	}
}
