//go:build kernel

package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
	"github.com/fairlead-dev/fairlead/test/treetest"
	"github.com/fairlead-dev/fairlead/volumes/tree"
)

const key = "a random key"

// bench is a repository, a volume with every kind of entry, and room for restores.
type bench struct {
	dir, volume string
	opts        Options
}

func newBench(t *testing.T, dir, repository string) bench {
	t.Helper()
	b := bench{dir: dir, volume: dir + "/volume", opts: Options{Name: "test", Path: repository, Key: key, Work: dir + "/work", Node: "here"}}
	check(t, os.Mkdir(b.volume, 0o755))
	treetest.Make(t, b.volume)
	check(t, Create(t.Context(), b.opts))
	return b
}

func (b bench) open(t *testing.T) *Repository {
	t.Helper()
	r, err := Open(t.Context(), b.opts)
	check(t, err)
	t.Cleanup(func() { check(t, r.Close(context.Background())) })
	return r
}

func (b bench) backup(t *testing.T, r *Repository) (Manifest, error) {
	t.Helper()
	root, err := tree.Root(b.volume)
	check(t, err)
	defer root.Close()
	return r.Backup(t.Context(), root, Source{Volume: "volume", Node: "here", Path: b.volume, Snapshot: "none", Taken: time.Now()}, "", nil)
}

func TestEveryKindOfEntryComesBackIdentical(t *testing.T) {
	for name, fs := range map[string]func(testing.TB) string{"ext4 or whatever /tmp is": hosttest.Dir, "XFS": hosttest.XFS, "btrfs": hosttest.Btrfs} {
		t.Run(name, func(t *testing.T) {
			hosttest.Root(t)
			b := newBench(t, fs(t), hosttest.Dir(t)+"/repository")
			r := b.open(t)
			m, err := b.backup(t, r)
			check(t, err)
			t.Logf("%+v, %d bytes stored", m.Counts, m.Stored)
			got, err := r.Restore(t.Context(), m.ID, b.dir+"/restored", nil)
			check(t, err)
			same(t, b.volume, b.dir+"/restored")
			if n := names(t, b.volume); got.Entries != n || m.Entries != n {
				t.Errorf("%d names, backed up %d, restored %d", n, m.Entries, got.Entries)
			}
			if _, err := r.Verify(t.Context(), m.ID, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnotherHostRestoresWithTheKeyAlone(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	m, err := b.backup(t, b.open(t))
	check(t, err)
	other := b.opts
	other.Work, other.Node = hosttest.Dir(t), "there"
	r, err := Open(t.Context(), other)
	check(t, err)
	defer r.Close(t.Context())
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != m.ID || list[0].Volume != "volume" || list[0].Node != "here" {
		t.Fatalf("the other host sees %+v (%v)", list, err)
	}
	_, err = r.Restore(t.Context(), m.ID, dir+"/restored", nil)
	check(t, err)
	same(t, b.volume, dir+"/restored")

	other.Key = "another key"
	if _, err := Open(t.Context(), other); !errors.Is(err, ErrKey) {
		t.Errorf("with another key: %v", err)
	}
}

func TestSecondBackupStoresOnlyWhatChanged(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	r := b.open(t)
	_, err := b.backup(t, r)
	check(t, err, os.WriteFile(b.volume+"/new", []byte("new"), 0o600))
	m, err := b.backup(t, r)
	check(t, err)
	if m.Stored > 100<<10 {
		t.Errorf("%d bytes were stored for one small file", m.Stored)
	}
	_, err = r.Restore(t.Context(), m.ID, dir+"/restored", nil)
	check(t, err)
	same(t, b.volume, dir+"/restored")
}

func TestRestoreRefusesATargetThatIsNotEmpty(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	r := b.open(t)
	m, err := b.backup(t, r)
	check(t, err, os.Mkdir(dir+"/full", 0o700), os.WriteFile(dir+"/full/mine", nil, 0o600))
	if _, err := r.Restore(t.Context(), m.ID, dir+"/full", nil); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("restored into what somebody has: %v", err)
	}
	if _, err := os.Stat(dir + "/full/mine"); err != nil {
		t.Error(err)
	}
	check(t, os.Symlink("full", dir+"/link"))
	if _, err := r.Restore(t.Context(), m.ID, dir+"/link", nil); err == nil {
		t.Error("restored through a link")
	}
}

func TestTargetLosesWhatItHadAndInheritsNothing(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	r := b.open(t)
	m, err := b.backup(t, r)
	check(t, err)
	target := dir + "/target"
	check(t, os.Mkdir(target, 0o777), unix.Setxattr(target, "user.own", []byte("x"), 0), unix.Chown(target, 3, 4), unix.Chmod(target, 0o2777))
	_, err = r.Restore(t.Context(), m.ID, target, nil)
	check(t, err)
	same(t, b.volume, target)
}

func TestInterruptedRestoreIsBegunAnew(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	r := b.open(t)
	m, err := b.backup(t, r)
	check(t, err)
	target := dir + "/target"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Restore(ctx, m.ID, target, nil); err == nil {
		t.Fatal("a cancelled restore succeeded")
	}
	check(t, os.WriteFile(target+"/half", []byte("torn"), 0o600))
	_, err = r.Restore(t.Context(), m.ID, target, nil)
	check(t, err)
	same(t, b.volume, target)
}

func TestDamagedPackFailsVerifyAndRestore(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	m, err := b.backup(t, b.open(t))
	check(t, err)
	damaged := 0
	check(t, filepath.WalkDir(b.opts.Path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasPrefix(strings.TrimPrefix(path, b.opts.Path), "/p") {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		buf := make([]byte, 1)
		st, err := f.Stat()
		check(t, err)
		for off := int64(64); off < st.Size(); off += 512 {
			_, err := f.ReadAt(buf, off)
			check(t, err)
			buf[0] ^= 1
			_, err = f.WriteAt(buf, off)
			check(t, err)
		}
		damaged++
		return f.Close()
	}))
	if damaged == 0 {
		t.Fatal("no pack was found to damage")
	}
	r := b.open(t)
	if _, err := r.Verify(t.Context(), m.ID, nil); err == nil {
		t.Error("a damaged backup was verified")
	}
	if _, err := r.Restore(t.Context(), m.ID, dir+"/restored", nil); err == nil {
		t.Error("a damaged backup was restored without an error")
	}
}

func TestFullRepositoryIsNamedAndKeepsEarlierBackups(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	disk := hosttest.Tmpfs(t, "24m")
	b := newBench(t, dir, disk+"/repository")
	first, err := b.backup(t, b.open(t))
	check(t, err)
	random, err := os.Open("/dev/urandom")
	check(t, err)
	defer random.Close()
	big := make([]byte, 40<<20)
	_, err = random.Read(big)
	check(t, err, os.WriteFile(b.volume+"/big", big, 0o600))
	began := time.Now()
	_, err = b.backup(t, b.open(t))
	var full *FullError
	if !errors.As(err, &full) || !strings.Contains(err.Error(), "repository test is full") {
		t.Fatalf("a full disk was reported as: %v", err)
	}
	t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), err)
	check(t, os.Remove(b.volume+"/big"))
	r := b.open(t)
	if _, err := r.Verify(t.Context(), first.ID, nil); err != nil {
		t.Errorf("the earlier backup: %v", err)
	}
	_, err = r.Restore(t.Context(), first.ID, dir+"/restored", nil)
	check(t, err)
	left, err := filepath.Glob(disk + "/repository/*/*" + temporary + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files were left: %v (%v)", left, err)
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d backups are listed (%v)", len(list), err)
	}
}

func TestWhatOthersMountBelowIsNamedAndEmpty(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	b := newBench(t, dir, dir+"/repository")
	r := b.open(t)
	below := b.volume + "/empty-dir"
	check(t, unix.Mount("fairlead-test", below, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { check(t, unix.Unmount(below, 0)) })
	check(t, os.WriteFile(below+"/foreign", nil, 0o600))
	m, err := b.backup(t, r)
	check(t, err)
	if len(m.Skipped) != 1 || m.Skipped[0] != "empty-dir" {
		t.Errorf("skipped %q", m.Skipped)
	}
	_, err = r.Restore(t.Context(), m.ID, dir+"/restored", nil)
	check(t, err)
	if list, err := os.ReadDir(dir + "/restored/empty-dir"); err != nil || len(list) > 0 {
		t.Errorf("restored %v (%v)", list, err)
	}
}

func names(t *testing.T, root string) (n int64) {
	t.Helper()
	check(t, filepath.WalkDir(root, func(_ string, _ fs.DirEntry, err error) error { n++; return err }))
	return n
}

func same(t *testing.T, a, b string) {
	t.Helper()
	if diff, err := treetest.Compare(a, b); err != nil || len(diff) > 0 {
		t.Errorf("%s and %s differ (%v):\n%s", a, b, err, strings.Join(diff, "\n"))
	}
}

func check(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
