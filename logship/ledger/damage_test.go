package ledger

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// reopen opens what a killed agent left, and gives what was logged as errors.
func reopen(t *testing.T, path string) (*Book, string) {
	t.Helper()
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))
	dir, err := state.Open(path, log)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	return b, said.String()
}

func fill(t *testing.T, path string) (*Book, *state.Dir) {
	t.Helper()
	b, dir := open(t, path)
	if _, _, err := b.SetSinks([]string{"copy", "far"}, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for i, s := range []string{"a", "b", "c"} {
		if err := b.AddStream(s, Source{Path: "/" + s, Origin: &sink.Origin{Host: "h"}}); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"copy", "far"} {
			if err := b.Ack(k, "m"+s, map[string]Position{s: at(1, int64(10+i))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b, dir
}

func aside(t *testing.T, path, name string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(path, name+".unreadable-*")); len(left) != 1 {
		t.Errorf("set aside: %v, want one copy of %s", left, name)
	}
}

func TestAJournalDamagedInTheMiddleIsSetAsideAndItsOtherLinesAreUsed(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	b, dir := fill(t, path)
	epoch := b.Epoch()
	text, err := os.ReadFile(dir.File(journalFile))
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(text, []byte(`"sink":"far","mark":"mb"`))
	if i < 0 {
		t.Fatalf("no such line:\n%s", text)
	}
	text[i+2] ^= 1
	if err := os.WriteFile(dir.File(journalFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	b, said := reopen(t, path)
	for _, k := range []string{"copy", "far"} {
		for i, s := range []string{"a", "b", "c"} {
			p, ok := b.Position(k, s)
			if want := k != "far" || s != "b"; ok != want || ok && p.Offset != int64(10+i) {
				t.Errorf("%s in %s: %v %v", k, s, p, ok)
			}
		}
	}
	aside(t, path, journalFile)
	if strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, journalFile) || !strings.Contains(said, "1 of") {
		t.Errorf("said %q", said)
	}
	if b.Epoch() == epoch || b.Epoch() == "" {
		t.Errorf("epoch %q after the damage, %q before", b.Epoch(), epoch)
	}
	again, said := reopen(t, path)
	if said != "" || again.Epoch() != b.Epoch() {
		t.Errorf("the second start said %q and has epoch %q, want %q", said, again.Epoch(), b.Epoch())
	}
}

func TestACheckpointDamagedAnywhereIsSetAsideAndWhatStandsBeforeIsUsed(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	b, dir := fill(t, path)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(dir.File(checkpointFile))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for at := 5; at < len(whole)-3; at += 97 {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, checkpointFile), append(append(bytes.Clone(whole[:at]), 0), whole[at+1:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		b, said := reopen(t, path)
		if strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, checkpointFile) {
			t.Fatalf("byte %d: said %q", at, said)
		}
		aside(t, path, checkpointFile)
		places := 0
		for _, k := range []string{"copy", "far"} {
			for i, s := range []string{"a", "b", "c"} {
				if p, ok := b.Position(k, s); ok {
					places++
					if p.Offset != int64(10+i) {
						t.Errorf("byte %d: %s stands in %s at %d, want %d", at, k, s, p.Offset, 10+i)
					}
				}
			}
		}
		if places < most {
			t.Errorf("byte %d: %d positions, and %d with the damage further ahead", at, places, most)
		}
		most = places
		// A sink whose place was lost begins at the start, not where another stands.
		if _, _, err := b.SetSinks([]string{"copy", "far"}, func(string) bool { return false }); err != nil {
			t.Fatal(err)
		}
		after := 0
		for _, k := range []string{"copy", "far"} {
			for _, s := range []string{"a", "b", "c"} {
				if _, ok := b.Position(k, s); ok {
					after++
				}
			}
		}
		if after != places {
			t.Errorf("byte %d: %d positions became %d", at, places, after)
		}
	}
	if most < 4 {
		t.Errorf("at most %d positions were read", most)
	}
}
