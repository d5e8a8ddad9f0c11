package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, path string) (*Dir, *bytes.Buffer) {
	t.Helper()
	var said bytes.Buffer
	d, err := Open(path, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return d, &said
}

// crashAt panics with crash{} at the n-th step from now.
type crash struct{}

func crashAt(d *Dir, n int) {
	d.step = func(string) {
		if n--; n == 0 {
			panic(crash{})
		}
	}
}

// crashes runs f and tells whether it was ended by a crash.
func crashes(f func()) (crashed bool) {
	defer func() {
		switch v := recover(); v.(type) {
		case nil:
		case crash:
			crashed = true
		default:
			panic(v)
		}
	}()
	f()
	return false
}

func TestWriteLeavesOldOrNewAfterACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		path := t.TempDir()
		d, _ := open(t, path)
		if err := d.WriteJSON("lease", "old"); err != nil {
			t.Fatal(err)
		}
		crashAt(d, n)
		crashed := crashes(func() { _ = d.WriteJSON("lease", "new") })

		d, said := open(t, path)
		var got string
		found, err := d.ReadJSON("lease", &got)
		if err != nil || !found || (got != "old" && got != "new") || said.Len() > 0 {
			t.Fatalf("after a crash at step %d: %q, found %v, err %v, said %q", n, got, found, err, said)
		}
		if !crashed {
			if got != "new" || n < 5 {
				t.Fatalf("wrote %q without a crash after %d steps", got, n)
			}
			return
		}
	}
}

func TestTornPromiseIsMovedAsideAloud(t *testing.T) {
	t.Parallel()
	d, said := open(t, t.TempDir())
	if err := os.WriteFile(d.File("lease"), []byte(`{"addr": "10.4`), 0o600); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"addr": "untouched"}
	found, err := d.ReadJSON("lease", &got)
	if found || err != nil || got["addr"] != "untouched" {
		t.Fatalf("torn file: found %v, err %v, value %v", found, err, got)
	}
	kept, _ := filepath.Glob(d.File("lease.unreadable-*"))
	if len(kept) != 1 || !strings.Contains(said.String(), "moved aside") {
		t.Fatalf("kept %v, said %q", kept, said)
	}
}

func TestDirectoryOfANewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "FORMAT"), []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "format 7") {
		t.Fatalf("got %v", err)
	}
	if b, _ := os.ReadFile(filepath.Join(path, "FORMAT")); string(b) != "7\n" {
		t.Fatalf("the newer version's file was changed to %q", b)
	}
}

func texts(records []json.RawMessage) (out []string) {
	for _, r := range records {
		out = append(out, string(r))
	}
	return out
}

func TestJournalGivesBackWhatWasAppended(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d, _ := open(t, path)
	j, _, err := d.OpenJournal("journal", "boot-a")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Append(1), j.Append(2, 3), j.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // opening changes nothing
		j, got, err := d.OpenJournal("journal", "boot-a")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"1", "2", "3"}, texts(got)); diff != "" {
			t.Fatal(diff)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalOfAnotherBootIsVoid(t *testing.T) {
	t.Parallel()
	d, _ := open(t, t.TempDir())
	j, _, err := d.OpenJournal("journal", "boot-a")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Append("old"), j.Close()); err != nil {
		t.Fatal(err)
	}
	j, got, err := d.OpenJournal("journal", "boot-b")
	if err != nil || len(got) > 0 {
		t.Fatalf("got %v, %v", texts(got), err)
	}
	if err := errors.Join(j.Append("new"), j.Close()); err != nil {
		t.Fatal(err)
	}
	_, got, err = d.OpenJournal("journal", "boot-b")
	if diff := cmp.Diff([]string{`"new"`}, texts(got)); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
}

func TestJournalCutAnywhereKeepsTheWholeRecordsAndGoesOn(t *testing.T) {
	t.Parallel()
	d, _ := open(t, t.TempDir())
	j, _, err := d.OpenJournal("journal", "boot")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Append("one"), j.Append("two"), j.Append("three"), j.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(d.File("journal"))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{`"one"`, `"two"`, `"three"`}
	for cut := range len(whole) + 1 {
		d, said := open(t, t.TempDir())
		if err := os.WriteFile(d.File("journal"), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := all[:max(0, bytes.Count(whole[:cut], []byte("\n"))-1)]
		j, got, err := d.OpenJournal("journal", "boot")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]string(nil), want...), texts(got)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		if torn := cut > 0 && whole[cut-1] != '\n'; torn != (said.Len() > 0) {
			t.Fatalf("cut at %d: said %q", cut, said)
		}
		if err := errors.Join(j.Append("next"), j.Close()); err != nil {
			t.Fatal(err)
		}
		_, got, err = d.OpenJournal("journal", "boot")
		if diff := cmp.Diff(append(append([]string(nil), want...), `"next"`), texts(got)); diff != "" || err != nil {
			t.Fatalf("appended after a cut at %d: %s, %v", cut, diff, err)
		}
	}
}

func TestJournalDamagedInTheMiddleKeepsWhatStandsBeforeAndTheFileAside(t *testing.T) {
	t.Parallel()
	d, said := open(t, t.TempDir())
	j, _, err := d.OpenJournal("journal", "boot")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Append("one", "two", "three"), j.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.File("journal"))
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("two"), []byte("2wo"), 1)
	if err := os.WriteFile(d.File("journal"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, got, err := d.OpenJournal("journal", "boot")
	if diff := cmp.Diff([]string{`"one"`}, texts(got)); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	kept, _ := filepath.Glob(d.File("journal.unreadable-*"))
	if len(kept) != 1 || !strings.Contains(said.String(), "record 2") {
		t.Fatalf("kept %v, said %q", kept, said)
	}
}

func TestCompactLeavesOldOrNewAfterACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		path := t.TempDir()
		d, _ := open(t, path)
		j, _, err := d.OpenJournal("journal", "boot")
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Append("one", "two"); err != nil {
			t.Fatal(err)
		}
		crashAt(d, n)
		crashed := crashes(func() {
			if err := j.Compact("two"); err != nil {
				t.Error(err)
			}
		})
		d, _ = open(t, path)
		_, got, err := d.OpenJournal("journal", "boot")
		text := fmt.Sprint(texts(got))
		if err != nil || (text != `["one" "two"]` && text != `["two"]`) {
			t.Fatalf("crash at step %d: %s, %v", n, text, err)
		}
		if !crashed {
			if text != `["two"]` {
				t.Fatalf("compacted to %s", text)
			}
			return
		}
	}
}

func TestASecondAgentIsKeptOutOfTheStateDirectoryAndToldWhoIsInIt(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	release, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d;", os.Getpid())) {
		t.Fatalf("second lock: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	release, err = Lock(path)
	if err != nil {
		t.Fatalf("after the first let go: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}
