package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// onDisk tells what the files in a directory take.
func onDisk(dir string) (n int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil {
			n += st.Blocks * 512
		}
	}
	return n
}

func TestTheOldestUndeliveredGenerationsAreGivenUpWhenTheyTakeTooMuchDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	down := sinktest.Listen(t, "")
	down.Stop()
	const limit = 1 << 20
	s := hurried(t, dir, Config{PinsBytes: limit, Files: []File{{Path: log}}, Sinks: []SinkConfig{{Name: "far", Type: "syslog", Address: "tcp://" + down.Addr}}}, newInventory())
	const generations, per = 8, 4_000
	n := 0
	size := int64(0)
	for i := range generations { // of 1.6 MB each, removed but for its pin
		text := numbered(n, n+per)
		n += per
		size += int64(len(text))
		writeFile(t, log, text)
		eventually(t, "the generation is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == int64(len(text)) })
		if i == generations-1 {
			break
		}
		if err := os.Rename(log, log+".1"); err != nil {
			t.Fatal(err)
		}
		writeFile(t, log, "")
		eventually(t, "the next is seen", func() bool { all := s.Streams(); return len(all) == 1 && all[0].Size == 0 })
		if err := os.Remove(log + ".1"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "less is on the disk", func() bool { return onDisk(filepath.Join(dir, "pins")) <= limit })
	if got := s.abandoned.Load(); int64(got) < size-4*limit || int64(got) > size {
		t.Errorf("%d bytes given up of %d with a bound of %d", got, size, limit)
	}
	back := sinktest.Listen(t, down.Addr)
	last := fmt.Sprintf("line %d", n-1)
	eventually(t, "the last line", func() bool { m := back.Messages(); return len(m) > 0 && strings.HasSuffix(m[len(m)-1], last) })
	eventually(t, "nothing is behind", func() bool { return s.sink(0).Lag == 0 })
	got := back.Messages()
	missing, doubled, what := tally(got, n)
	have := map[string]bool{}
	for _, m := range got {
		have[m[strings.LastIndex(m, "line "):]] = true
	}
	lost := 0
	for i := range n {
		if !have[fmt.Sprintf("line %d", i)] {
			lost += len(numbered(i, i+1))
		}
	}
	if missing == 0 || doubled > 0 || !have["line "+fmt.Sprint(n-1)] || !have["line "+fmt.Sprint(n-per)] {
		t.Errorf("%d missing, %d doubled: %s", missing, doubled, what)
	}
	if reported := int(s.sink(0).Lost); reported != lost {
		t.Errorf("%d bytes reported lost, %d are", reported, lost)
	}
}
