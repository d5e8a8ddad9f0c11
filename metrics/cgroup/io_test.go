package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGarbageAmongDevicesIsAnErrorAndWhatCameBeforeStands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		f    format
		text string
	}{
		{v1IO[1], "8:0 Read 7\n8:0 Write x\n"}, {v1IO[1], "8:0 Read 7\n8 Read 1\n"}, {v1IO[1], "8:0 Read 7\nTotal\nnonsense\n"},
		{v1IO[1], "8:0 Read 7\n99999999999:0 Read 1\n"},
		{v2IO[0], "8:0 rbytes=7\n8:1 rbytes=\n"}, {v2IO[0], "8:0 rbytes=7\nx rbytes=1\n"},
	} {
		var s Stats
		if err := c.f.parse([]byte(c.text), &s); err == nil && !strings.Contains(c.text, "nonsense") {
			t.Errorf("%s accepted %q", c.f.name, c.text)
		}
		if len(s.IO) == 0 || s.IO[0].Bytes[Read] != Known(7) {
			t.Errorf("%s of %q: %+v", c.f.name, c.text, s.IO)
		}
	}
}

func TestADeviceThatWasNeverUsedHasNoEntry(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "7:1 \n", "7:1\n", "7:1 cost.usage=4\n"} {
		var s Stats
		if err := v2IO[0].parse([]byte(text), &s); err != nil || len(s.IO) != 0 {
			t.Errorf("%q: %+v, %v", text, s.IO, err)
		}
	}
}

func TestProcessorListsAreCounted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"0\n": 1, "0-3\n": 4, "0-3,8\n": 5, "1,3,5-6\n": 4} {
		if got, err := listed([]byte(text)); err != nil || got != Known(want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"\n", "3-1\n", "a\n", "0-\n", "0,,1\n", "0-99999999\n"} {
		if got, err := listed([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func FuzzDevicesAndPressure(f *testing.F) {
	f.Add("8:0 Read 1\nTotal 1\n")
	f.Add("8:0 rbytes=1 wbytes=2\n")
	f.Add("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, format := range append(append(append([]format{}, v1IO...), v2IO...), pressure...) {
			var s Stats
			_ = format.parse([]byte(text), &s)
			if len(s.IO) > len(text) {
				t.Errorf("%d devices from %q", len(s.IO), text)
			}
		}
		_, _ = listed([]byte(text))
	})
}

func TestOpenSocketsAreCountedOnRequest(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	for name, to := range map[string]string{"7/fd/0": "/dev/null", "7/fd/1": "socket:[11]", "7/fd/9": "socket:[12]", "8/fd/3": "socket:[13]", "8/fd/4": "pipe:[4]"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(proc, name)); err != nil {
			t.Fatal(err)
		}
	}
	var tree Tree
	if got := tree.openSockets([]byte("7\n8\n")); got.Known {
		t.Errorf("without being asked to: %+v", got)
	}
	tree.CountSockets(proc)
	if got := tree.openSockets([]byte("7\n8\n99\n")); got != Known(3) {
		t.Errorf("%+v", got)
	}
	if got := tree.openSockets([]byte(strings.Repeat("7\n", mostProcesses+1))); got.Known {
		t.Errorf("of too many processes: %+v", got)
	}
}
