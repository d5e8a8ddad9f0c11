//go:build kernel

package logship

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

func TestAFullDiskLeavesNoHalfDeadLetter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("fairlead-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	d := &deadLetters{path: filepath.Join(dir, "dead")}
	add := func(line string) error {
		return d.add([]sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte(line)}}, []sink.Rejection{{Reason: "bad"}})
	}
	if err := add("first"); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	writeFile(t, filler, strings.Repeat("x", 40<<10))
	long := strings.Repeat("y", 32<<10)
	if err := add(long); err == nil {
		t.Fatal("the disk is not full")
	}
	if got := lines(d.path); len(got) != 1 || !json.Valid([]byte(got[0])) {
		t.Errorf("after the failure: %d lines", len(got))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := add(long); err != nil {
		t.Fatal(err)
	}
	got := lines(d.path)
	if len(got) != 2 || !json.Valid([]byte(got[1])) || !strings.Contains(got[1], long) {
		t.Errorf("%d lines", len(got))
	}
}
