package reap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/state"
)

// Kept is one directory, or file, in quarantine.
type Kept struct {
	Ref      string    `json:"ref"`
	Resource Resource  `json:"resource"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	At       time.Time `json:"at"`
	// Doing is what was begun and not yet noted as done: "moving", "returning", "deleting".
	Doing string `json:"doing,omitempty"`
}

const catalogueName = "quarantine.json"

// quarantine moves directories aside, on their own file system, and back. What it does is noted in its catalogue, a
// promise, before. It is guarded by the Reaper's lock.
type quarantine struct {
	state *state.Dir
	proc  string
	kept  []Kept
	step  func(string) // called before each change; tests crash in it
}

// open reads the catalogue and settles what a crash has left in the middle. told hears of each.
func (q *quarantine) open(told func(Kept, string) error) error {
	q.kept = nil
	if _, err := q.state.ReadJSON(catalogueName, &q.kept); err != nil {
		return fmt.Errorf("read quarantine: %w", err)
	}
	var errs []error
	settled := q.kept[:0:0]
	for _, k := range q.kept {
		_, err := os.Lstat(k.To)
		switch {
		case k.Doing == "":
		case k.Doing == "moving" && err == nil:
			errs = append(errs, told(k, "quarantined"))
		case k.Doing == "moving":
			errs = append(errs, told(k, "interrupted"))
			continue
		case k.Doing == "returning" && err != nil:
			errs = append(errs, told(k, "undone"))
			continue
		}
		if k.Doing != "deleting" {
			k.Doing = ""
		}
		settled = append(settled, k)
	}
	q.kept = settled
	return errors.Join(append(errs, q.save())...)
}

func (q *quarantine) save() error { return q.state.WriteJSON(catalogueName, q.kept) }

// take moves r's directory into its room.
func (q *quarantine) take(r Resource, now time.Time) (Kept, error) {
	k := Kept{Ref: r.Ref(), Resource: r, From: r.Dir, At: now, Doing: "moving"}
	k.To = filepath.Join(r.Room, fmt.Sprintf("%s-%d-%s", k.Ref, now.UnixNano(), filepath.Base(r.Dir)))
	if err := q.unmounted(r.Dir); err != nil {
		return k, err
	}
	if err := os.MkdirAll(r.Room, 0o700); err != nil {
		return k, fmt.Errorf("make quarantine: %w", err)
	}
	q.kept = append(q.kept, k)
	q.step("note moving")
	if err := q.save(); err != nil {
		return k, err
	}
	q.step("move")
	if err := move(k.From, k.To); err != nil {
		q.forget(k)
		return k, errors.Join(err, q.save())
	}
	q.step("note moved")
	return k, q.note(k, "")
}

// giveBack moves a directory to where it was. It fails when something else stands there now.
func (q *quarantine) giveBack(k Kept) error {
	q.step("note returning")
	if err := q.note(k, "returning"); err != nil {
		return err
	}
	q.step("return")
	if err := os.MkdirAll(filepath.Dir(k.From), 0o711); err != nil {
		return errors.Join(err, q.note(k, ""))
	}
	if err := move(k.To, k.From); err != nil {
		return errors.Join(err, q.note(k, ""))
	}
	q.step("note returned")
	q.forget(k)
	return q.save()
}

// remove deletes a directory for good.
func (q *quarantine) remove(k Kept) error {
	if err := q.unmounted(k.To); err != nil {
		return err
	}
	if err := q.note(k, "deleting"); err != nil {
		return err
	}
	if err := os.RemoveAll(k.To); err != nil {
		return fmt.Errorf("delete from quarantine: %w", err)
	}
	q.forget(k)
	return q.save()
}

func (q *quarantine) find(ref string) (Kept, bool) {
	i := slices.IndexFunc(q.kept, func(k Kept) bool { return k.Ref == ref })
	if i < 0 {
		return Kept{}, false
	}
	return q.kept[i], true
}

func (q *quarantine) note(k Kept, doing string) error {
	for i := range q.kept {
		if q.kept[i].To == k.To {
			q.kept[i].Doing = doing
		}
	}
	return q.save()
}

func (q *quarantine) forget(k Kept) {
	q.kept = slices.DeleteFunc(q.kept, func(o Kept) bool { return o.To == k.To })
}

// unmounted fails when something is mounted at or below dir: moving or deleting would reach into it.
func (q *quarantine) unmounted(dir string) error {
	table, err := os.ReadFile(filepath.Join(q.proc, "self/mountinfo"))
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for l := range strings.Lines(string(table)) {
		f := strings.Fields(l)
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			return fmt.Errorf("%s is still mounted", f[4])
		}
	}
	return nil
}

// move renames, never over something, and waits for the disk.
func move(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	return errors.Join(syncDir(filepath.Dir(from)), syncDir(filepath.Dir(to)))
}
