package logship

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestVerifyNamesAWrongLedgerAShortenedFileAndAnAlteredLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	paths := map[string]string{}
	cfg := Config{Files: []File{{Path: filepath.Join(dir, "*.log")}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: filepath.Join(dir, "copy")}}}
	for _, name := range []string{"good", "ledger", "short", "altered"} {
		paths[name] = filepath.Join(dir, name+".log")
		writeFile(t, paths[name], numbered(0, 1000))
	}
	s := hurried(t, dir, cfg, newInventory())
	eventually(t, "all lines, summed", func() bool {
		v, err := s.Verify()
		if err != nil {
			t.Fatal(err)
		}
		return v.Streams == 4 && v.Positions == 4 && v.Summed == int64(4*len(numbered(0, 1000)))
	})
	if v, _ := s.Verify(); len(v.Faults) > 0 {
		t.Fatalf("nothing is wrong, and verify says %+v", v.Faults)
	}
	s.stop()
	text, err := os.ReadFile(paths["altered"])
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(text, []byte("line 500\n"))
	text[i+5] = '6'
	f, err := os.OpenFile(paths["altered"], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(text); err != nil { // in place: the same file
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(paths["short"], 5000); err != nil {
		t.Fatal(err)
	}
	positions := filepath.Join(dir, "state/positions.json")
	text, err = os.ReadFile(positions)
	if err != nil {
		t.Fatal(err)
	}
	sinks := bytes.Index(text, []byte(`"sinks"`))
	at := sinks + bytes.Index(text[sinks:], []byte(paths["ledger"]))
	at += bytes.Index(text[at:], []byte(`"offset": `)) + len(`"offset": `)
	text[at] = '1' // of five digits, the first: another place in the same file
	if err := os.WriteFile(positions, text, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(filepath.Join(dir, "state"), filepath.Join(dir, "pins"))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Faults) != 3 {
		t.Errorf("%d faults, want three: %+v", len(v.Faults), v.Faults)
	}
	for name, want := range map[string]string{"ledger": "wrong ledger", "short": "shortened file", "altered": "altered line: one of lines 50"} {
		found := 0
		for _, f := range v.Faults {
			if f.Path == paths[name] && strings.HasPrefix(f.What, want) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: %d faults that begin with %q", name, found, want)
		}
	}
}

func TestVerifyFindsWhatWasAlteredInRotatedAndPinnedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	r := sinktest.Listen(t, "")
	cfg := Config{Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: filepath.Join(dir, "copy")},
		{Name: "far", Type: "syslog", Address: "tcp://" + r.Addr}}}
	r.Stop()
	s := hurried(t, dir, cfg, newInventory())
	size := int64(len(numbered(0, 1000)))
	for i := range 3 {
		writeFile(t, log, numbered(i*1000, (i+1)*1000))
		eventually(t, "the lines are summed", func() bool {
			v, err := s.Verify()
			if err != nil || len(v.Faults) > 0 {
				t.Fatalf("%+v, %v", v, err)
			}
			return v.Summed >= int64(i+1)*size
		})
		if i < 2 {
			if err := os.Rename(log, fmt.Sprintf("%s.%d", log, 2-i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.stop()
	// The first lies beside the log, the second has its pin only.
	alter := func(path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("Y"), 1234); err != nil {
			t.Fatal(err)
		}
	}
	alter(log + ".2")
	alter(log + ".1")
	if err := os.Remove(log + ".1"); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(filepath.Join(dir, "state"), filepath.Join(dir, "pins"))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Faults) != 2 || !strings.HasPrefix(v.Faults[0].What, "altered line") || !strings.HasPrefix(v.Faults[1].What, "altered line") {
		t.Errorf("faults %+v", v.Faults)
	}
}

func TestVerifyComparesWhatWasPackedAndTellsOfAPackedFileThatIsDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "logs", "a.log")
	text := varied(0, 5000)
	s := hurried(t, dir, Config{Pins: "off", Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "copy", Type: "file", Path: filepath.Join(dir, "copy")}}}, newInventory())
	writeFile(t, log, text)
	summed := func() (Verified, bool) {
		v, err := s.Verify()
		if err != nil {
			t.Fatal(err)
		}
		return v, v.Summed == int64(len(text))
	}
	eventually(t, "the lines, summed", func() bool { _, all := summed(); return all })
	s.stop()
	pack := func(part float64) {
		move(t, log, log+".1")
		pack(t, log+".1", part)
	}
	pack(1)
	if v, all := summed(); !all || len(v.Faults) > 0 {
		t.Errorf("packed: %+v", v)
	}
	writeFile(t, log, text)
	if err := os.Remove(log + ".1.gz"); err != nil {
		t.Fatal(err)
	}
	pack(0.3)
	if v, all := summed(); all || len(v.Faults) != 1 || !strings.HasPrefix(v.Faults[0].What, "damaged packed file: ") {
		t.Errorf("damaged: %+v", v)
	}
}
