package ledger

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

func open(t *testing.T, path string) (*Book, *state.Dir) {
	t.Helper()
	dir, err := state.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

func at(birth, off int64) Position {
	return Position{Place: tail.Place{Identity: tail.Identity{Ino: 7, Birth: birth}, Offset: off}}
}

func TestAJournalCutAnywhereGivesAMarkAndThePositionsThatBelongToIt(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	b, dir := open(t, path)
	if err := b.AddStream("s", Source{Path: "/s", Origin: &sink.Origin{Host: "h"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	const acks = 5
	for i := 1; i <= acks; i++ {
		if err := b.Ack("copy", fmt.Sprint(i), map[string]Position{"s": at(1, int64(i)), "t": at(1, int64(10*i))}); err != nil {
			t.Fatal(err)
		}
	}
	// The agent dies here: no Close.
	checkpoint, err := os.ReadFile(dir.File(checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	journal, err := os.ReadFile(dir.File(journalFile))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(journal) + 1 {
		// Each open is several fsyncs: the ends of lines, and a sample of what lies between.
		if cut%41 != 0 && !bytes.Contains(journal[max(0, cut-2):min(len(journal), cut+1)], []byte("\n")) {
			continue
		}
		again := t.TempDir()
		_, dir := open(t, again)
		for name, text := range map[string][]byte{checkpointFile: checkpoint, journalFile: journal[:cut]} {
			if err := os.WriteFile(dir.File(name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b, _ := open(t, again)
		whole := bytes.Count(journal[:cut], []byte("\n")) - 1 // without the line of AddStream
		mark := b.Mark("copy")
		p, _ := b.Position("copy", "s")
		q, _ := b.Position("copy", "t")
		want := fmt.Sprint(max(whole, 0))
		if whole <= 0 {
			want = ""
		}
		if mark != want || p.Offset != int64(max(whole, 0)) || q.Offset != 10*p.Offset {
			t.Fatalf("cut at %d: mark %q, positions %d and %d; want %q", cut, mark, p.Offset, q.Offset, want)
		}
	}
}

func TestACheckpointAndAStaleJournalAreNotAppliedTwice(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	b, dir := open(t, path)
	for i := range 3 {
		if err := b.Ack("copy", "", map[string]Position{"s": at(1, int64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	stale, err := os.ReadFile(dir.File(journalFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.DropStream("s"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// The crash came after the checkpoint and before the journal was emptied.
	if err := os.WriteFile(dir.File(journalFile), stale, 0o600); err != nil {
		t.Fatal(err)
	}
	b, _ = open(t, path)
	if p, ok := b.Position("copy", "s"); ok {
		t.Errorf("a dropped stream is back at %d", p.Offset)
	}
}

func TestANewSinkBeginsWhereTheFurthestOtherStands(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	b, _ := open(t, path)
	none := func(string) bool { return false }
	if _, _, err := b.SetSinks([]string{"a", "b"}, none); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]Position{"a": at(1, 900), "b": at(2, 5)} { // b is in the newer generation
		if err := b.Ack(name, "", map[string]Position{"s": p}); err != nil {
			t.Fatal(err)
		}
	}
	added, dropped, err := b.SetSinks([]string{"b", "c", "d"}, func(n string) bool { return n == "d" })
	if err != nil || fmt.Sprint(added, dropped) != "[c d] [a]" {
		t.Errorf("added and removed: %v %v, %v", added, dropped, err)
	}
	b, _ = open(t, path)
	if p, _ := b.Position("c", "s"); p.Birth != 2 || p.Offset != 5 {
		t.Errorf("c begins at %+v, want where b stands", p)
	}
	if p, ok := b.Position("d", "s"); ok {
		t.Errorf("d begins at %+v, want the start", p)
	}
	if _, ok := b.Position("a", "s"); ok {
		t.Error("a is still kept")
	}
}

func TestAnIntentMovesNothingUntilItIsAcknowledged(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	b, _ := open(t, path)
	for _, step := range []func() error{
		func() error { return b.Ack("x", "", map[string]Position{"s": at(1, 1)}) },
		func() error { return b.Intend("x", map[string]Position{"s": at(1, 2)}) },
		func() error { return b.Sent("x", "proof") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	b, _ = open(t, path)
	intent, proof, ok := b.Intent("x")
	if p, _ := b.Position("x", "s"); p.Offset != 1 || !ok || proof != "proof" || intent["s"].Offset != 2 {
		t.Errorf("position %d, intent %v %q %v", p.Offset, intent, proof, ok)
	}
	if err := b.Ack("x", "", intent); err != nil {
		t.Fatal(err)
	}
	if p, _ := b.Position("x", "s"); p.Offset != 2 {
		t.Errorf("position %d after the acknowledgement", p.Offset)
	}
	if _, _, ok := b.Intent("x"); ok {
		t.Error("the intent is still open")
	}
}
