package tail

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// later writes path so that its birth is after all that came before: the kernel's clock for it is coarse.
func later(t *testing.T, path, text string) {
	t.Helper()
	other := path + "-clock"
	write(t, other, "")
	first, err := Host.Identify(other)
	must(t, err)
	for now := first; now.Birth == first.Birth; {
		must(t, os.Remove(other))
		write(t, other, "")
		now, err = Host.Identify(other)
		must(t, err)
	}
	must(t, os.Remove(other))
	write(t, path, text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, g *Generation) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := g.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(b[:n])
}

func series(t *testing.T, path string, saved ...Place) *Series {
	t.Helper()
	s := NewSeries(Host, path, nil, false, func(Identity) bool { return false }, saved)
	t.Cleanup(func() { s.Close(true) })
	_, err := s.Look()
	must(t, err)
	return s
}

func all(t *testing.T, s *Series) string {
	t.Helper()
	var out []string
	for g := s.First(); g != nil; g = g.Next() {
		out = append(out, content(t, g))
	}
	return strings.Join(out, " ")
}

func TestNoLinkLeadsOutOfTheRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := Root(filepath.Join(dir, "root"))
	write(t, filepath.Join(dir, "secret"), "host")
	write(t, string(root)+"/etc/real", "inside")
	must(t, os.Symlink(filepath.Join(dir, "secret"), string(root)+"/absolute"))
	must(t, os.Symlink("../../../../.."+dir+"/secret", string(root)+"/relative"))
	must(t, os.Symlink("/etc", string(root)+"/dir"))
	must(t, os.Symlink(dir, string(root)+"/up"))
	must(t, unix.Mkfifo(string(root)+"/fifo", 0o644))
	for path, want := range map[string]string{"/dir/real": "inside", "/../../etc/real": "inside", "/absolute": "", "/relative": "", "/up/secret": "", "/fifo": ""} {
		f, err := root.Open(path)
		if want == "" {
			if err == nil {
				f.Close()
				t.Errorf("%s was opened", path)
			}
			continue
		}
		must(t, err)
		b, _ := io.ReadAll(f)
		f.Close()
		if string(b) != want {
			t.Errorf("%s has %q, want %q", path, b, want)
		}
	}
	if got, _, _ := root.Glob("/up/*"); len(got) > 0 {
		t.Errorf("a glob found %v", got)
	}
}

func TestAGlobLeavesOlderGenerationsToTheirPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, n := range []string{"a.log", "a.log.1", "a.log-20261121", "a.log.2.gz", "b.log.1", "c-1.log", "sub/d.log"} {
		write(t, filepath.Join(dir, n), "")
	}
	matches, dirs, err := Host.Glob(dir + "/*")
	must(t, err)
	got := strings.ReplaceAll(strings.Join(matches, " "), dir+"/", "")
	if got != "a.log b.log.1 c-1.log sub" {
		t.Errorf("got %s", got)
	}
	if len(dirs) != 1 {
		t.Errorf("watch %v", dirs)
	}
	if _, dirs, err = Host.Glob(dir + "/not/yet/*.log"); err != nil || len(dirs) != 1 || !strings.HasSuffix(dirs[0], filepath.Base(dir)) {
		t.Errorf("a missing directory: watch %v, %v; want its nearest ancestor", dirs, err)
	}
}

func TestGenerationsComeInTheOrderOfTheirBirth(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "a.log")
	write(t, log, "one")
	s := series(t, log)
	// Two rotations between two looks.
	must(t, os.Rename(log, log+".1"))
	later(t, log, "two")
	must(t, os.Rename(log+".1", log+".2"))
	must(t, os.Rename(log, log+".1"))
	later(t, log, "three")
	changed, err := s.Look()
	must(t, err)
	if got := all(t, s); !changed || got != "one two three" {
		t.Errorf("got %q", got)
	}
	// What every reader has is let go of, and does not come back although it lies there.
	s.Release(func(*Generation) bool { return true })
	must(t, os.Rename(log, log+".0"))
	later(t, log, "four")
	_, err = s.Look()
	must(t, err)
	if got := all(t, s); got != "three four" {
		t.Errorf("got %q", got)
	}
}

func TestACopyLeftByCopytruncateIsNoGeneration(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "a.log")
	write(t, log, "original")
	s := series(t, log)
	later(t, log+".1", "original")
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, _ = f.WriteString("new")
	must(t, f.Close())
	_, err = s.Look()
	must(t, err)
	if s.Generations() != 2 || content(t, s.First()) != "original" || content(t, s.Last()) != "new" {
		t.Errorf("%d generations, the first has %q, the last %q", s.Generations(), content(t, s.First()), content(t, s.Last()))
	}
	if again := series(t, log); all(t, again) != "new" {
		t.Errorf("after a restart: %q", all(t, again))
	}
}

func TestAPlaceIsFoundByContentAndNotByItsNumbersAlone(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "a.log")
	write(t, log, "0123456789")
	g := series(t, log).Last()
	place := Place{Identity: g.ID, Proof: g.Proof(6), Offset: 6, Seen: 10}
	if _, found, _ := series(t, log, place).Find(place); !found {
		t.Error("not found where it is")
	}
	must(t, os.Rename(log, log+".odd-name"))
	write(t, log, "abc")
	if g, found, _ := series(t, log, place).Find(place); !found || content(t, g) != "0123456789" {
		t.Error("not found under another name")
	}
	// The same file with another content, as after copytruncate while the agent was down.
	must(t, os.WriteFile(log+".odd-name", []byte("XX23456789"), 0o644))
	if _, found, lost := series(t, log, place).Find(place); found || lost != 4 {
		t.Errorf("another head: found %v, lost %d, want 4", found, lost)
	}
	// The same inode given to another file.
	other := place
	other.Birth--
	if _, found, _ := series(t, log, other).Find(other); found {
		t.Error("a reused inode was taken for the file")
	}
}

func TestPinsKeepARotatedFileUntilItIsReleasedAndNoLonger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, pinDir := filepath.Join(dir, "a.log"), filepath.Join(dir, "pins")
	quiet := slog.New(slog.DiscardHandler)
	start := func() *Series {
		s := NewSeries(Host, log, NewPins("me", "e", pinDir, quiet), false, func(Identity) bool { return false }, nil)
		_, err := s.Look()
		must(t, err)
		return s
	}
	count := func() int { e, _ := os.ReadDir(pinDir); return len(e) }
	write(t, log, "one")
	s := start()
	if count() != 0 {
		t.Error("a file that logrotate may work on has a second link")
	}
	must(t, os.Rename(log, log+".1"))
	later(t, log, "two")
	_, err := s.Look()
	must(t, err)
	s.Close(false) // the agent ends, and the old generation is deleted
	must(t, os.Remove(log+".1"))
	s = start()
	if got := all(t, s); got != "one two" {
		t.Errorf("after a restart: %q", got)
	}
	s.Release(func(*Generation) bool { return true })
	if count() != 0 {
		t.Errorf("%d links are left", count())
	}
	s.Close(true)
	write(t, filepath.Join(pinDir, "me-forgotten,e,,"), "")
	write(t, filepath.Join(pinDir, "me-doubtful,former,,"), "")
	write(t, filepath.Join(pinDir, "other-agent,e,,"), "")
	pins := NewPins("me", "e", pinDir, quiet)
	_ = pins.all(Host, log)
	pins.Sweep()
	if count() != 2 {
		t.Errorf("%d links after the sweep, want that of the other agent and that of lost positions", count())
	}
}

// A reader raises Seen while Touch compares it with the file's size: the size must not be the older of the two, or the
// file looks truncated and is sent again.
func TestAFileThatGrowsUnderItsReaderIsNotTakenForTruncated(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, "begin\n")
	s := series(t, path)
	g := s.Last()
	done := make(chan struct{})
	for _, work := range []func(){
		func() {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for range 20000 {
				_, _ = f.WriteString("line\n")
			}
		},
		func() {
			size, _, _ := g.Stat()
			for range 40000 {
				buf := make([]byte, 64)
				n, _ := g.ReadAt(buf, size)
				size += int64(n)
			}
		},
	} {
		go func() {
			work()
			done <- struct{}{}
		}()
	}
	for running := 2; running > 0; {
		select {
		case <-done:
			running--
		default:
			if _, err := s.Touch(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if g.Cut() || s.Last() != g {
		t.Fatal("the file was taken for truncated")
	}
}
