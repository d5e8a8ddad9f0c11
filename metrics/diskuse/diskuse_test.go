package diskuse

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run runs e until the test ends, and waits until it knows all of paths.
func run(t *testing.T, e *Estimator, paths ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { e.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	e.Want(paths)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		known := 0
		for _, p := range paths {
			if _, ok := e.Get(p); ok {
				known++
			}
		}
		if known == len(paths) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d trees are known", known, len(paths))
		}
	}
}

func TestATreeIsCountedAsDuCountsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var bytes uint64
	add := func(name string, size int) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1200 { // more than one piece
		add(fmt.Sprintf("d%d/f%d", i%7, i), i*10)
	}
	if err := os.Link(filepath.Join(dir, "d0/f0"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for i := range 1200 {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, fmt.Sprintf("d%d/f%d", i%7, i)), &st); err != nil {
			t.Fatal(err)
		}
		bytes += uint64(st.Blocks) * 512
	}
	e := New(time.Hour, time.Now)
	run(t, e, dir)
	got, _ := e.Get(dir)
	if want := uint64(1 + 7 + 1200 + 1); got.Inodes != want || got.Bytes < bytes || got.Bytes > bytes+(1<<20) || got.At.IsZero() || got.TotalBytes == 0 {
		t.Errorf("got %+v, want %d inodes and somewhat more than %d bytes", got, want, bytes)
	}
}

func TestATreeThatIsNotThereIsUnknownAndHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	there, gone := t.TempDir(), "/nowhere/at/all"
	e := New(time.Hour, time.Now)
	run(t, e, gone, there)
	if got, _ := e.Get(gone); got.Inodes != 0 {
		t.Errorf("%+v", got)
	}
	if got, _ := e.Get(there); got.Inodes != 1 {
		t.Errorf("%+v", got)
	}
	e.Want([]string{there})
	if _, ok := e.Get(gone); ok {
		t.Error("what nobody wants is remembered")
	}
}

func TestAnEstimateIsMadeAgainInItsTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Unix(1000, 0)
	e := New(time.Minute, func() time.Time { return now })
	e.Want([]string{dir})
	e.have[dir] = Estimate{At: now.Add(-20 * time.Second)}
	if path, wait := e.next(); path != "" || wait != 40*time.Second {
		t.Errorf("%q is due, or something in %s", path, wait)
	}
	e.have[dir] = Estimate{At: now.Add(-time.Minute)}
	if path, _ := e.next(); path != dir {
		t.Errorf("%q is due", path)
	}
}
