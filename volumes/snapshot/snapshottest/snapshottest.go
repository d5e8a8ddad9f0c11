// Package snapshottest is the suite that every snapshot driver passes. It owns nothing but what the tests remove.
package snapshottest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/treetest"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

// Run runs the suite. fs is an empty directory on a file system that d fits; volume makes the root of a volume there.
// It needs root.
func Run(t *testing.T, d snapshot.Driver, fs string, volume func(t *testing.T, path string)) {
	s := suite{driver: d, fs: fs, volume: volume}
	tests := map[string]func(*testing.T, suite){
		"every kind of entry is in the snapshot":              everyKind,
		"the snapshot stays when the volume changes":          staysAsItIs,
		"the volume stays when the snapshot goes":             volumeStays,
		"what is mounted below is an empty directory":         mountBelow,
		"removing what is not there, or twice, is no error":   removeTwice,
		"a cancelled snapshot can be removed":                 cancelled,
		"the driver fits here and says so without a trace":    fits,
		"the room inside the volume is not in the snapshot":   roomInside,
		"a volume that is replaced by a link is not followed": linkInPlace,
	}
	if d.Name() == "btrfs" { // there the room is a directory in the snapshot; whoever reads it leaves it out by its path
		delete(tests, "the room inside the volume is not in the snapshot")
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

type suite struct {
	driver snapshot.Driver
	fs     string
	volume func(*testing.T, string)
}

// place makes a volume with every kind of entry and a room beside it.
func (s suite) place(t *testing.T) (volume, room string) {
	t.Helper()
	dir := filepath.Join(s.fs, strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()))
	check(t, os.Mkdir(dir, 0o755))
	volume, room = dir+"/volume", dir+"/room"
	s.volume(t, volume)
	treetest.Make(t, volume)
	check(t, os.Mkdir(room, 0o700))
	t.Cleanup(func() {
		r := open(t, dir)
		check(t, snapshot.Btrfs().Remove(context.Background(), r, "volume"), r.Clear(context.Background()), os.Remove(dir))
	})
	return volume, room
}

func (s suite) take(ctx context.Context, t *testing.T, volume, room string) (snapshot.Result, error) {
	t.Helper()
	t.Cleanup(func() { check(t, s.driver.Remove(context.Background(), open(t, room), "copy")) })
	return s.driver.Take(ctx, snapshot.Source{Dir: open(t, volume)}, open(t, room), "copy")
}

func everyKind(t *testing.T, s suite) {
	volume, room := s.place(t)
	_, err := s.take(t.Context(), t, volume, room)
	check(t, err)
	same(t, volume, room+"/copy")
}

func staysAsItIs(t *testing.T, s suite) {
	volume, room := s.place(t)
	before := filepath.Join(filepath.Dir(volume), "before")
	check(t, os.Mkdir(before, 0o700))
	_, err := snapshot.Copy().Take(t.Context(), snapshot.Source{Dir: open(t, volume)}, open(t, before), "copy")
	check(t, err)
	_, err = s.take(t.Context(), t, volume, room)
	check(t, err)
	f, err := os.OpenFile(volume+"/large", os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("changed"), 1<<20)
	check(t, err, f.Close(), os.Remove(volume+"/suid"), os.WriteFile(volume+"/new", nil, 0o600), unix.Setxattr(volume+"/tagged", "user.origin", nil, 0))
	same(t, before+"/copy", room+"/copy")
}

func volumeStays(t *testing.T, s suite) {
	volume, room := s.place(t)
	before, err := treetest.Compare(volume, volume)
	check(t, err)
	_, err = s.take(t.Context(), t, volume, room)
	check(t, err, s.driver.Remove(t.Context(), open(t, room), "copy"))
	if len(before) > 0 {
		t.Fatal(before)
	}
	if _, err := os.Lstat(room + "/copy"); !os.IsNotExist(err) {
		t.Errorf("the snapshot is still there: %v", err)
	}
	b, err := os.ReadFile(volume + "/large")
	if err != nil || len(b) != 16*200<<10 {
		t.Errorf("large has %d bytes (%v)", len(b), err)
	}
}

func mountBelow(t *testing.T, s suite) {
	volume, room := s.place(t)
	below := volume + "/empty-dir"
	check(t, unix.Mount("fairlead-test", below, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { check(t, unix.Unmount(below, 0)) })
	check(t, os.WriteFile(below+"/foreign", nil, 0o600))
	r, err := s.take(t.Context(), t, volume, room)
	check(t, err)
	list, err := os.ReadDir(room + "/copy/empty-dir")
	if err != nil || len(list) > 0 {
		t.Errorf("the snapshot has %v (%v) of another file system", list, err)
	}
	if r.Entries > 0 && strings.Join(r.Skipped, " ") != "empty-dir" {
		t.Errorf("skipped %q", r.Skipped)
	}
}

func removeTwice(t *testing.T, s suite) {
	volume, room := s.place(t)
	check(t, s.driver.Remove(t.Context(), open(t, room), "never"))
	_, err := s.take(t.Context(), t, volume, room)
	check(t, err, s.driver.Remove(t.Context(), open(t, room), "copy"), s.driver.Remove(t.Context(), open(t, room), "copy"))
}

func cancelled(t *testing.T, s suite) {
	volume, room := s.place(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.take(ctx, t, volume, room); err == nil && s.driver.Name() != "btrfs" {
		t.Error("a cancelled snapshot was taken")
	}
	check(t, s.driver.Remove(t.Context(), open(t, room), "copy"))
	if list, err := os.ReadDir(room); err != nil || len(list) > 0 {
		t.Errorf("left in the room: %v (%v)", list, err)
	}
}

func fits(t *testing.T, s suite) {
	volume, room := s.place(t)
	var before, after unix.Stat_t
	check(t, unix.Stat(volume, &before), s.driver.Fits(open(t, volume), open(t, room)), unix.Stat(volume, &after))
	if before.Mtim != after.Mtim {
		t.Error("trying it changed the volume's time")
	}
	if list, err := os.ReadDir(room); err != nil || len(list) > 0 {
		t.Errorf("trying it left %v (%v)", list, err)
	}
}

func roomInside(t *testing.T, s suite) {
	volume, _ := s.place(t)
	inside := volume + "/.room"
	check(t, os.Mkdir(inside, 0o700), os.Mkdir(inside+"/part", 0o700))
	hide, err := open(t, inside).ID()
	check(t, err)
	_, err = s.driver.Take(t.Context(), snapshot.Source{Dir: open(t, volume), Hide: hide}, open(t, inside+"/part"), "copy")
	check(t, err)
	if _, err := os.Lstat(inside + "/part/copy/.room"); !os.IsNotExist(err) {
		t.Errorf("the room is in the snapshot (%v)", err)
	}
}

func linkInPlace(t *testing.T, s suite) {
	volume, _ := s.place(t)
	check(t, os.Symlink("volume", volume+"-link"))
	if d, err := tree.Root(volume + "-link"); err == nil {
		t.Errorf("opened %v through a link", d.Close())
	}
}

func open(t *testing.T, path string) *tree.Dir {
	t.Helper()
	d, err := tree.Root(path)
	check(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func same(t *testing.T, a, b string) {
	t.Helper()
	if diff, err := treetest.Compare(a, b); err != nil || len(diff) > 0 {
		t.Errorf("%s and %s differ (%v):\n%s", a, b, err, strings.Join(diff, "\n"))
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
