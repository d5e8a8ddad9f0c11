package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: no text makes the decoder panic, each problem names the file, and what was accepted is printed so that
// it decodes to the same again.
func FuzzDecode(f *testing.F) {
	broken, _ := filepath.Glob("testdata/broken/*.yaml")
	for _, name := range broken {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(located))
	f.Add([]byte("listen: \"a $${ # \\n\\t\\0\\u2028 b\"\norphans: {keep: {'': ' ', \"~\": '1', a: \"\\r\\n\"}, kinds: [x, \"\"]}\nlimit: {files: -0x10}\n"))
	f.Add([]byte("orphans: {keep: {a: \"\\t\\n\"}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(string(text), "${file:") {
			t.Skip("reads files of this host")
		}
		into := defaults()
		file, err := Decode("f", text, &into)
		if err != nil {
			for _, p := range err.(Problems) { //nolint:errorlint // Decode promises this very type
				if p.File != "f" || p.Line < 1 || p.Message == "" {
					t.Errorf("problem without its place: %#v", p)
				}
			}
			return
		}
		var b strings.Builder
		if err := Print(&b, into, file); err != nil {
			t.Fatal(err)
		}
		again := defaults()
		if _, err := Decode("printed", []byte(b.String()), &again); err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if d := cmp.Diff(into, again, options); d != "" {
			t.Errorf("printed and decoded again:\n%s\n%s", d, b.String())
		}
	})
}
