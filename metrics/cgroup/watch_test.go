package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

// reading is a Reader with its Tree, which are asked as a scrape does.
func reading(t *testing.T, layout string, left int) (dir string, tree *Tree, read func() *Stats) {
	t.Helper()
	dir, h, m := recorded(t, layout)
	tree = NewTree(h, &budget{left: left})
	if err := tree.Watch(); err != nil {
		t.Skipf("no inotify instance is left: %v", err)
	}
	r := tree.Reader(m)
	t.Cleanup(r.Close)
	var b Buffer
	return dir, tree, func() *Stats {
		t.Helper()
		s := new(Stats)
		tree.Refresh()
		if err := r.Read(&b, s); err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestALimitIsReadAgainWhenItWasWritten(t *testing.T) {
	t.Parallel()
	dir, tree, read := reading(t, "v2", 100)
	at := filepath.Join(dir, cgroups, v2path)
	read()
	kept := tree.Kept()
	for i := range uint64(3) {
		read()
		write(t, filepath.Join(at, "memory.max"), string('1'+byte(i))+"\n")
		if got := read(); got.Memory.Limit != Known(i+1) {
			t.Errorf("limit %+v, want %d", got.Memory.Limit, i+1)
		}
	}
	if tree.Kept() != kept || kept != 15 {
		t.Errorf("%d descriptors kept, then %d", kept, tree.Kept())
	}
	if err := os.Remove(filepath.Join(at, "memory.max")); err != nil {
		t.Fatal(err)
	}
	if got := read(); got.Memory.Limit.Known {
		t.Errorf("limit %+v of a file that is no more", got.Memory.Limit)
	}
}

// A write that nobody is told of, as no kernel makes one: so it is seen that limits are not read each time.
func TestALimitThatNobodyWroteIsNotReadAgain(t *testing.T) {
	t.Parallel()
	dir, tree, read := reading(t, "v1", 100)
	path := filepath.Join(dir, cgroups, "memory", v1path, "memory.limit_in_bytes")
	want := read().Memory.Limit
	write(t, path, "1\n")
	tree.watches.discard()
	if got := read().Memory.Limit; got != want {
		t.Errorf("%+v was read anew", got)
	}
	write(t, path, "2\n")
	if got := read().Memory.Limit; got != Known(2) {
		t.Errorf("%+v after a write", got)
	}
}

// discard drops what was told.
func (w *watches) discard() {
	w.mu.Lock()
	of := w.of
	w.of = nil
	w.mu.Unlock()
	w.refresh()
	w.mu.Lock()
	w.of = of
	w.mu.Unlock()
}

func TestLimitsAreReadEachTimeWhereNoWatchIsLeft(t *testing.T) {
	t.Parallel()
	dir, tree, read := reading(t, "v2", 100)
	tree.watches.fd = -1 // as when the kernel's bound of watches is reached
	read()
	if tree.Kept() != 21 {
		t.Errorf("%d descriptors kept", tree.Kept())
	}
	write(t, filepath.Join(dir, cgroups, v2path, "memory.max"), "5\n")
	if got := read().Memory.Limit; got != Known(5) {
		t.Errorf("limit %+v", got)
	}
}

func TestALostEventMakesAllLimitsNew(t *testing.T) {
	t.Parallel()
	dir, tree, read := reading(t, "v2", 100)
	read()
	write(t, filepath.Join(dir, cgroups, v2path, "pids.max"), "5\n")
	tree.watches.discard()
	tree.watches.changed(-1, 0x4000) // IN_Q_OVERFLOW
	if got := read().Pids.Limit; got != Known(5) {
		t.Errorf("limit %+v", got)
	}
}

func TestClosedReadersLeaveNoWatch(t *testing.T) {
	t.Parallel()
	_, h, m := recorded(t, "v1")
	tree := NewTree(h, &budget{left: 100})
	if err := tree.Watch(); err != nil {
		t.Skip(err)
	}
	a, b := tree.Reader(m), tree.Reader(m)
	for _, r := range []*Reader{a, b} {
		if err := r.Read(new(Buffer), new(Stats)); err != nil {
			t.Fatal(err)
		}
	}
	with := len(tree.watches.of)
	a.Close()
	if len(tree.watches.of) != with || with == 0 {
		t.Errorf("%d directories watched, %d after one of two was closed", with, len(tree.watches.of))
	}
	if b.Close(); len(tree.watches.of) != 0 {
		t.Errorf("%d directories are still watched", len(tree.watches.of))
	}
}
