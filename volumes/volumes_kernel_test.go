//go:build kernel

package volumes

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/test/hosttest"
	"github.com/fairlead-dev/fairlead/test/treetest"
	"github.com/fairlead-dev/fairlead/volumes/backup"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

// nobody is the view of a host without containers.
type nobody struct{}

func (nobody) Snapshot() *container.Snapshot { return &container.Snapshot{} }

// part runs the part with its state in dir/NODE; stop ends it.
func part(t *testing.T, dir, node string, cfg Config) (v *Volumes, stop func()) {
	t.Helper()
	st, err := state.Open(dir+"/"+node, slog.New(slog.NewTextHandler(t.Output(), nil)))
	check(t, err)
	v, err = New(cfg, Deps{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Stats: &stat.Registry{}, State: st, Inventory: nobody{}, Node: node})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- v.Run(agent.WithReady(ctx, func() { close(ready) })) }()
	<-ready
	stop = sync.OnceFunc(func() { cancel(); check(t, <-ended) })
	t.Cleanup(stop)
	return v, stop
}

func odd(t *testing.T, dir string) Config {
	t.Helper()
	check(t, os.Mkdir(dir+"/odd", 0o755))
	treetest.Make(t, dir+"/odd")
	return Config{Directories: []Directory{{"odd", dir + "/odd"}}, Repositories: []Repository{{Name: "local", Path: dir + "/backups"}}}
}

func TestVolumeIsBackedUpDestroyedAndRestored(t *testing.T) {
	for name, fs := range map[string]func(testing.TB) string{"copy": hosttest.Dir, "reflink": hosttest.XFS} {
		t.Run(name, func(t *testing.T) {
			hosttest.Root(t)
			dir := fs(t)
			cfg := odd(t, dir)
			v, _ := part(t, hosttest.Dir(t), "here", cfg)
			var phases []string
			b, err := v.Backup(t.Context(), "odd", "", func(p Progress) { phases = append(phases, p.Phase) })
			check(t, err)
			if got := strings.Join(slices.Compact(phases), " "); got != "snapshot backup" {
				t.Errorf("phases %q", got)
			}
			if b.Source.Snapshot != name {
				t.Errorf("read from a %s snapshot", b.Source.Snapshot)
			}
			if left, err := v.Snapshots(); err != nil || len(left) > 0 {
				t.Errorf("the backup left snapshots %+v (%v)", left, err)
			}
			check(t, os.Rename(dir+"/odd", dir+"/original"))
			r, err := v.Restore(t.Context(), Wanted{Volume: "odd"}, dir+"/odd", nil)
			check(t, err)
			same(t, dir+"/original", dir+"/odd")
			if r.Done != b.Counts {
				t.Errorf("restored %+v, backed up %+v", r.Done, b.Counts)
			}
			_, err = v.Verify(t.Context(), Wanted{ID: string(b.ID[:6])}, nil)
			check(t, err)
			gone, err := v.Remove(t.Context(), string(b.ID[:8]))
			if err != nil || gone.ID != string(b.ID) {
				t.Errorf("removed %+v (%v)", gone, err)
			}
			if _, err := v.Restore(t.Context(), Wanted{Volume: "odd"}, dir+"/again", nil); !errors.Is(err, ErrUnknown) {
				t.Errorf("restored what is gone: %v", err)
			}
		})
	}
}

func TestHowTheLastBackupWentIsKnownAfterARestartToo(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	v, stop := part(t, dir, "state", odd(t, dir))
	last := func() LastBackup {
		t.Helper()
		list := v.LastBackups()
		if len(list) != 1 || list[0].Volume != "odd" || list[0].Repository != "local" || time.Since(list[0].At) > time.Hour {
			t.Fatalf("last backups are %+v", list)
		}
		return list[0]
	}
	if list := v.LastBackups(); len(list) > 0 {
		t.Errorf("before any: %+v", list)
	}
	b, err := v.Backup(t.Context(), "odd", "", func(Progress) {
		if list := v.LastBackups(); len(list) > 0 {
			t.Errorf("while it is at work: %+v", list)
		}
	})
	check(t, err)
	if l := last(); l.ID != b.ID || l.Error != "" {
		t.Errorf("made, and the last is %+v", l)
	}
	check(t, os.Rename(dir+"/backups", dir+"/unmounted"))
	if _, err := v.Backup(t.Context(), "odd", "", nil); err == nil || last().Error != err.Error() || last().ID != "" {
		t.Errorf("failed (%v), and the last is %+v", err, last())
	}
	stop()
	v, stop = part(t, dir, "state", v.cfg)
	if l := last(); !strings.Contains(l.Error, "is its disk mounted?") {
		t.Errorf("after a restart the last is %+v", l)
	}
	check(t, os.Rename(dir+"/unmounted", dir+"/backups"))
	v.backingUp(v.Volumes()[0], v.cfg.Repositories[0]) // and is killed
	stop()
	v, _ = part(t, dir, "state", v.cfg)
	if l := last(); l.Error != "the agent was ended in the middle" || l.ID != "" {
		t.Errorf("after a kill the last is %+v", l)
	}
	b, err = v.Backup(t.Context(), "odd", "", nil)
	check(t, err)
	if l := last(); l.ID != b.ID || l.Error != "" {
		t.Errorf("made, and the last is %+v", l)
	}
}

func TestSnapshotIsTakenListedAndRemoved(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	v, stop := part(t, dir, "state", odd(t, dir))
	var told []Progress
	s, err := v.Snapshot(t.Context(), "odd", func(p Progress) { told = append(told, p) })
	check(t, err)
	if n := len(told); n < 2 || told[0].Entries != 0 || told[n-1].Phase != "snapshot" || told[n-1].Entries != s.Entries || told[n-1].Bytes != s.Bytes || s.Entries == 0 {
		t.Errorf("of %+v was told %+v", s.Result, told)
	}
	same(t, dir+"/odd", s.Path)
	stop()
	v, _ = part(t, dir, "state", v.cfg) // another agent knows of it
	list, err := v.Snapshots()
	if err != nil || len(list) != 1 || list[0].ID != s.ID || list[0].Path != s.Path || list[0].Volume != "odd" {
		t.Fatalf("listed are %+v (%v)", list, err)
	}
	_, err = v.Remove(t.Context(), string(s.ID[:12]))
	check(t, err)
	if list, err := v.Snapshots(); err != nil || len(list) > 0 {
		t.Errorf("still there: %+v (%v)", list, err)
	}
}

func TestVolumeThatIsAMountHoldsItsOwnSnapshots(t *testing.T) {
	for driver, fs := range map[string]func(testing.TB) string{"reflink": hosttest.XFS, "btrfs": hosttest.Btrfs} {
		t.Run(driver, func(t *testing.T) {
			volume, dir := fs(t), hosttest.Dir(t)
			treetest.Make(t, volume)
			cfg := Config{Directories: []Directory{{"odd", volume}}, Repositories: []Repository{{Name: "local", Path: dir + "/backups"}}}
			v, _ := part(t, dir, "state", cfg)
			s, err := v.Snapshot(t.Context(), "odd", nil)
			check(t, err)
			if s.Driver != driver || !strings.HasPrefix(s.Path, volume+"/"+snapshot.RoomName+"/") || s.Hidden != snapshot.RoomName {
				t.Errorf("taken was %+v", s)
			}
			b, err := v.Backup(t.Context(), "odd", "", nil)
			check(t, err)
			_, err = v.Restore(t.Context(), Wanted{Volume: "odd"}, dir+"/restored", nil)
			check(t, err)
			if _, err := os.Lstat(dir + "/restored/" + snapshot.RoomName); !os.IsNotExist(err) {
				t.Errorf("the backup holds the room (%v)", err)
			}
			if len(b.Skipped) > 0 {
				t.Errorf("skipped %q", b.Skipped)
			}
			_, err = v.Remove(t.Context(), string(s.ID))
			check(t, err, os.Remove(volume+"/"+snapshot.RoomName), os.Chtimes(volume, time.Time{}, time.Unix(0, 0)), os.Chtimes(dir+"/restored", time.Time{}, time.Unix(0, 0)))
			same(t, volume, dir+"/restored")
		})
	}
}

func TestSnapshotsOutliveTheLossOfTheState(t *testing.T) {
	volume := hosttest.XFS(t)
	cfg := Config{Directories: []Directory{{"odd", volume}}}
	v, stop := part(t, hosttest.Dir(t), "state", cfg)
	s, err := v.Snapshot(t.Context(), "odd", nil)
	check(t, err)
	stop()
	v, _ = part(t, hosttest.Dir(t), "state", cfg)
	if list, err := v.Snapshots(); err != nil || len(list) != 1 || list[0].ID != s.ID {
		t.Errorf("listed are %+v (%v)", list, err)
	}
}

func TestAnotherHostNeedsTheKey(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	here := odd(t, dir)
	v, _ := part(t, dir, "here", here)
	_, err := v.Backup(t.Context(), "odd", "", nil)
	check(t, err)

	there := Config{Repositories: here.Repositories}
	other, stop := part(t, dir, "there", there)
	c, err := other.Backups(t.Context())
	if err != nil || len(c.Backups) > 0 || len(c.Problems) != 1 || !strings.Contains(c.Problems[0], "is another host's, or had another name here: set volumes.repositories.key") {
		t.Errorf("without the key: %+v (%v)", c, err)
	}
	stop()
	var p repositoryPromise
	if _, err := v.deps.State.ReadJSON("repository-local.json", &p); err != nil || p.Key == "" {
		t.Fatalf("no key was kept: %+v (%v)", p, err)
	}
	there.Repositories = []Repository{{Name: "elsewhere", Path: dir + "/backups", Key: p.Key}}
	other, _ = part(t, dir, "there", there)
	_, err = other.Restore(t.Context(), Wanted{Volume: "odd"}, dir+"/restored", nil)
	check(t, err)
	same(t, dir+"/odd", dir+"/restored")
}

func TestRepositoryThatVanishedIsNotBegunAnew(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	v, _ := part(t, dir, "state", odd(t, dir))
	_, err := v.Backup(t.Context(), "odd", "", nil)
	check(t, err, os.Rename(dir+"/backups", dir+"/unmounted"), os.Mkdir(dir+"/backups", 0o700))
	if _, err := v.Backup(t.Context(), "odd", "", nil); err == nil || !strings.Contains(err.Error(), "is its disk mounted?") {
		t.Errorf("backed up into an empty mount point: %v", err)
	}
	if left, err := os.ReadDir(dir + "/backups"); err != nil || len(left) > 0 {
		t.Errorf("written were %v (%v)", left, err)
	}
	check(t, os.WriteFile(dir+"/backups/mine", nil, 0o600), v.deps.State.Remove("repository-local.json"))
	if _, err := v.Backup(t.Context(), "odd", "", nil); !errors.Is(err, backup.ErrForeign) {
		t.Errorf("made a repository among somebody's files: %v", err)
	}
}

func TestStopEndsABackupAndLeavesNothing(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	cfg := odd(t, dir)
	v, stop := part(t, dir, "state", cfg)
	running := v.running
	_, err := v.Backup(t.Context(), "odd", "", func(p Progress) {
		if p.Phase == "snapshot" {
			go stop()
			<-running.Done()
		}
	})
	if err == nil || !strings.Contains(err.Error(), errStopping.Error()) && !errors.Is(err, context.Canceled) {
		t.Errorf("the backup ended with %v", err)
	}
	stop()
	if _, err := v.Snapshot(t.Context(), "odd", nil); !errors.Is(err, ErrNotReady) {
		t.Errorf("after the stop: %v", err)
	}
	v, _ = part(t, dir, "state", cfg)
	if list, err := v.Snapshots(); err != nil || len(list) > 0 {
		t.Errorf("left are %+v (%v)", list, err)
	}
	_, err = v.Backup(t.Context(), "odd", "", nil)
	check(t, err)
}

func TestTwoOperationsOnOneVolumeAreRefused(t *testing.T) {
	hosttest.Root(t)
	dir := hosttest.Dir(t)
	v, _ := part(t, dir, "state", odd(t, dir))
	var second error
	_, err := v.Backup(t.Context(), "odd", "", func(p Progress) {
		if p.Phase == "snapshot" {
			_, second = v.Snapshot(t.Context(), "odd", nil)
		}
	})
	check(t, err)
	if !errors.Is(second, ErrBusy) {
		t.Errorf("a second operation: %v", second)
	}
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
