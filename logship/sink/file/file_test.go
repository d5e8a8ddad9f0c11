package file

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestFileKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		dir := filepath.Join(t.TempDir(), "d")
		path := filepath.Join(dir, "copy.log")
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		return sinktest.Harness{
			Once: true,
			New:  func() sink.Sink { return New(path, slog.New(slog.DiscardHandler)) },
			Received: func() []string {
				b, _ := os.ReadFile(path)
				return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
			},
			Down: func() {
				must(os.Rename(dir, dir+".away"))
				must(os.WriteFile(dir, nil, 0o600)) // no directory, so nothing can be made in it
			},
			Up: func() {
				must(os.Remove(dir))
				must(os.Rename(dir+".away", dir))
			},
		}
	})
}

func TestARotatedFileIsMadeAnewAndAForeignOneIsNotCut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "copy.log")
	s := New(path, slog.New(slog.DiscardHandler))
	defer s.Close()
	one := []sink.Record{{Origin: &sink.Origin{Host: "h", Path: "/a b"}, Line: []byte("text")}}
	r, err := s.Deliver(t.Context(), one, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Deliver(t.Context(), append(one, one...), nil); err != nil {
		t.Fatal(err)
	}
	const line = "1970-01-01T00:00:00.000000000Z h - file:/a_b text\n"
	if _, err := New(path, slog.New(slog.DiscardHandler)).Resume(t.Context(), r.Mark); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{path + ".1": line, path: line + line} {
		if b, err := os.ReadFile(p); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", p, b, err, want)
		}
	}
}

func TestAFullFileIsRotatedAndARestartUndoesThatTooExactly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "copy.log")
	start := func(mark string) *Sink {
		s := NewRotated(path, 100, 2, slog.New(slog.DiscardHandler))
		t.Cleanup(func() { _ = s.Close() })
		if _, err := s.Resume(t.Context(), mark); err != nil {
			t.Fatal(err)
		}
		return s
	}
	put := func(s *Sink, text string) string {
		r, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte(text)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.Mark
	}
	all := func() (out string) {
		for _, p := range []string{path + ".2", path + ".1", path} {
			b, _ := os.ReadFile(p)
			for l := range strings.Lines(string(b)) {
				out += l[strings.LastIndexByte(l, ' ')+1:len(l)-1] + " "
			}
			out += "| "
		}
		return out
	}
	s := start("")
	put(s, "1")
	put(s, "2")
	mark := put(s, "3")
	put(s, "4") // without a saved mark, in the next file
	if got := all(); got != "| 1 2 3 | 4 | " {
		t.Fatalf("got %s", got)
	}
	_ = s.Close()
	s = start(mark)
	for _, text := range []string{"4", "5", "6", "7", "8", "9", "10"} {
		put(s, text)
	}
	if got := all(); got != "4 5 6 | 7 8 9 | 10 | " {
		t.Errorf("got %s", got)
	}
}
