package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

func TestOpenFilesAreCountedByTheSizeOfTheirDirectoryOrOneByOne(t *testing.T) {
	t.Parallel()
	const files = 3 + 500 // more than one piece of the listing has
	cat := exec.CommandContext(t.Context(), "cat")
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for range files - 3 {
		cat.ExtraFiles = append(cat.ExtraFiles, null)
	}
	cat.Stderr = os.Stderr
	in, err1 := cat.StdinPipe()
	out, err2 := cat.StdoutPipe()
	if err := errors.Join(err1, err2, cat.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = in.Close(), cat.Wait() }()
	if _, err := io.WriteString(in, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // from now on it opens nothing
		t.Fatal(err)
	}
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", cat.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()

	var tree Tree
	procs := fmt.Appendf(nil, "%d\n999999999\n", cat.Process.Pid) // nobody has the second number
	if got := tree.openFiles(procs); got.Known {
		t.Errorf("without being asked to: %+v", got)
	}
	tree.CountFiles("/proc")
	for _, listed := range []bool{tree.listed, true} {
		tree.listed = listed
		if got := tree.openFiles(procs); got != Known(files) {
			t.Errorf("listed %v: %+v, want %d", listed, got, files)
		}
		for range 2 { // a directory that is kept open is asked again and again
			if got, err := tree.filesIn(int(dir.Fd())); err != nil || got != files {
				t.Errorf("listed %v, kept open: %d, %v, want %d", listed, got, err, files)
			}
		}
		if got := tree.openFiles(bytes.Repeat([]byte("1\n"), mostProcesses+1)); got.Known {
			t.Errorf("a crowd was counted: %+v", got)
		}
	}
	if !(&Tree{}).counted(mostOpen+1).Known || (&Tree{listed: true}).counted(mostOpen+1).Known {
		t.Error("the bound is for those that are listed, and for no others")
	}
}
