package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/volumes"
	"github.com/fairlead-dev/fairlead/volumes/snapshot"
)

const volumeHelp = `fairlead volume ls | snapshot NAME | snapshots | backup NAME [--repository R] | backups
                | restore NAME [--backup ID] [--repository R] --to DIR | verify NAME [--backup ID] [--repository R]
                | rm ID      [--json]

  ls         volumes of this host: named ones of Docker and Podman, bind mounts of containers with the label
             fairlead.backup, directories of the configuration
  snapshot   takes a snapshot beside the volume, in the best way that its file system knows
  backup     takes a snapshot and stores it in a repository, which is made when it is not there
  restore    brings a backup (default: the newest) back into DIR, which must be empty; DIR may be on another host
  verify     reads a whole backup and compares the hash of every file
  rm         removes a snapshot or a backup by its ID or the beginning of it; a backup is then gone for good, but its
             data stay in the repository: no space becomes free there

NAME is as ls shows it; of docker/data, data will do. Example:

  fairlead volume backup odd && fairlead volume restore odd --to /srv/odd.restored`

func runVolume(e env, args []string) error {
	f := newFlags(e, "volume", volumeHelp).client()
	repository := f.String("repository", "", "the `name` of a repository; needed when there are several")
	id := f.String("backup", "", "the `ID` of a backup, or its beginning; default: the newest")
	to := f.String("to", "", "the `directory` to restore to, empty or missing")
	words, err := f.words(args)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return misuse("expected ls, snapshot, snapshots, backup, backups, restore, verify or rm, see --help")
	}
	if err := f.onlyFor(words[0]); err != nil {
		return err
	}
	name := func(what string) (string, error) {
		if len(words) != 2 {
			return "", misuse("expected `%s %s`, see --help", words[0], what)
		}
		return words[1], nil
	}
	switch words[0] {
	case "ls":
		return f.volumeList(e, words)
	case "snapshots":
		return f.snapshotList(e, words)
	case "backups":
		return f.backupList(e, words)
	case "snapshot":
		n, err := name("NAME")
		if err != nil {
			return err
		}
		return f.takeSnapshot(e, volumeRequest{Volume: n})
	case "backup":
		n, err := name("NAME")
		if err != nil {
			return err
		}
		return f.makeBackup(e, volumeRequest{Volume: n, Repository: *repository})
	case "restore", "verify":
		n, err := name("NAME")
		if err != nil {
			return err
		}
		q := volumeRequest{Volume: n, Backup: *id, Repository: *repository, To: *to}
		if words[0] == "verify" {
			return f.verifyBackup(e, q)
		}
		if *to == "" {
			return misuse("restore needs --to DIR")
		}
		if q.To, err = filepath.Abs(*to); err != nil { // the daemon has another working directory
			return err
		}
		return f.restoreBackup(e, q)
	case "rm":
		n, err := name("ID")
		if err != nil {
			return err
		}
		return f.removeVolumeCopy(e, volumeRequest{ID: n})
	}
	return misuse("unknown `volume %s`, see --help", words[0])
}

// volumeFlags are the flags that only some operations know.
var volumeFlags = map[string][]string{
	"repository": {"backup", "restore", "verify"},
	"backup":     {"restore", "verify"},
	"to":         {"restore"},
}

// onlyFor refuses flags that the operation verb would not heed.
func (f *flags) onlyFor(verb string) (err error) {
	f.Visit(func(given *flag.Flag) {
		if verbs, some := volumeFlags[given.Name]; some && !slices.Contains(verbs, verb) {
			err = misuse("--%s is not for `volume %s`, see --help", given.Name, verb)
		}
	})
	return err
}

// words reads flags wherever they stand and gives what is none.
func (f *flags) words(args []string) (words []string, err error) {
	for {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return nil, f.help()
		}
		if err != nil {
			return nil, misuse("%v", err)
		}
		if f.NArg() == 0 {
			return words, nil
		}
		words, args = append(words, f.Arg(0)), f.Args()[1:]
	}
}

func (f *flags) volumeList(e env, words []string) error {
	if len(words) > 1 {
		return misuse("unexpected %q, see --help", words[1])
	}
	var list []volumes.Volume
	printed, err := f.ask(e, "/v1/volumes", &list)
	if err != nil || printed {
		return err
	}
	var rows [][]string
	for _, v := range list {
		var users []string
		for _, u := range v.Users {
			users = append(users, u.Name+":"+u.At)
		}
		rows = append(rows, []string{v.Name, string(v.Kind), strings.Join(users, ","), v.Backup, v.Path})
	}
	table(e.stdout, "VOLUME KIND CONTAINERS BACKUP PATH", rows)
	return nil
}

func (f *flags) snapshotList(e env, words []string) error {
	if len(words) > 1 {
		return misuse("unexpected %q, see --help", words[1])
	}
	var a snapshotsAnswer
	printed, err := f.ask(e, "/v1/volumes/snapshots", &a)
	if err != nil || printed {
		return err
	}
	var rows [][]string
	for _, s := range a.Snapshots {
		rows = append(rows, []string{string(s.ID), s.Volume, s.Driver, ago(s.Taken), s.Path})
	}
	table(e.stdout, "SNAPSHOT VOLUME DRIVER AGE PATH", rows)
	return said(e, a.Problems)
}

func (f *flags) backupList(e env, words []string) error {
	if len(words) > 1 {
		return misuse("unexpected %q, see --help", words[1])
	}
	var c volumes.Catalogue
	printed, err := f.ask(e, "/v1/volumes/backups", &c)
	if err != nil || printed {
		return err
	}
	var rows [][]string
	for _, b := range c.Backups {
		rows = append(rows, []string{
			string(b.ID[:min(12, len(b.ID))]), b.Volume, b.Node, b.Repository, ago(b.Taken), fmt.Sprint(b.Entries), size(b.Bytes), size(b.Stored),
		})
	}
	table(e.stdout, "BACKUP VOLUME NODE REPOSITORY AGE ENTRIES DATA STORED", rows)
	return said(e, c.Problems)
}

// said prints problems and makes the command fail when there are any.
func said(e env, problems []string) error {
	for _, p := range problems {
		fmt.Fprintln(e.stderr, p)
	}
	if len(problems) > 0 {
		return errUnwell
	}
	return nil
}

func (f *flags) takeSnapshot(e env, q volumeRequest) error {
	var s snapshot.Info
	return f.work(e, "/v1/volumes/snapshot", q, &s, func() {
		fmt.Fprintf(e.stdout, "snapshot %s of %s by %s in %s: %s\n", s.ID, s.Volume, s.Driver, time.Duration(s.TookNS).Round(time.Millisecond), s.Path)
		warn(e, "written to while it was copied", s.Changed)
		warn(e, "not in the snapshot, another file system", s.Skipped)
	})
}

func (f *flags) makeBackup(e env, q volumeRequest) error {
	var b volumes.Backup
	return f.work(e, "/v1/volumes/backup", q, &b, func() {
		fmt.Fprintf(e.stdout, "backup %s of %s in %s: %d entries, %s of data, %s stored, by %s snapshot, in %s\n",
			b.ID, b.Volume, b.Repository, b.Entries, size(b.Bytes), size(b.Stored), b.Source.Snapshot, b.Finished.Sub(b.Started).Round(time.Millisecond))
		warn(e, "written to while it was copied", b.Changed)
		warn(e, "not in the backup, another file system", b.Skipped)
	})
}

func (f *flags) restoreBackup(e env, q volumeRequest) error {
	var r volumes.Restored
	return f.work(e, "/v1/volumes/restore", q, &r, func() {
		fmt.Fprintf(e.stdout, "restored backup %s of %s to %s: %d entries, %s of data, every file's hash compared\n",
			r.Backup.ID, r.Backup.Volume, r.To, r.Done.Entries, size(r.Done.Bytes))
	})
}

func (f *flags) verifyBackup(e env, q volumeRequest) error {
	var r volumes.Restored
	return f.work(e, "/v1/volumes/verify", q, &r, func() {
		fmt.Fprintf(e.stdout, "backup %s of %s is whole: %d entries, %s of data, every file's hash compared\n",
			r.Backup.ID, r.Backup.Volume, r.Done.Entries, size(r.Done.Bytes))
	})
}

func (f *flags) removeVolumeCopy(e env, q volumeRequest) error {
	var r volumes.Removed
	return f.work(e, "/v1/volumes/remove", q, &r, func() {
		fmt.Fprintf(e.stdout, "removed %s %s of %s\n", r.Kind, r.ID, r.Volume)
		if r.Kind == "backup" {
			fmt.Fprintf(e.stdout, "no space was freed: its data (%s when it was made) stay in repository %s, where other backups may share them\n",
				size(r.Stored), r.Repository)
		}
	})
}

func warn(e env, what string, paths []string) {
	for _, p := range paths {
		fmt.Fprintf(e.stderr, "%s: %q\n", what, p)
	}
}

// work asks the daemon for something that takes its time, shows how far it is, and calls show with the result in out.
// Ctrl-C ends the work in the daemon, too.
func (f *flags) work(e env, path string, in, out any, show func()) error {
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &progress{w: e.stderr, terminal: terminal(e.stderr)}
	err = c.Stream(ctx, path, in, out, func(raw json.RawMessage) {
		var now volumes.Progress
		if json.Unmarshal(raw, &now) == nil {
			p.show(now)
		}
	})
	p.end()
	if err != nil {
		return err
	}
	if *f.json {
		return printJSON(e.stdout, out)
	}
	show()
	return nil
}

// progress writes one line that it writes over on a terminal, else a line each ten seconds.
type progress struct {
	w        io.Writer
	terminal bool
	last     time.Time
	dirty    bool
}

func (p *progress) show(now volumes.Progress) {
	if now.Entries == 0 && !p.terminal {
		return
	}
	text := fmt.Sprintf("%s: %d entries, %s", now.Phase, now.Entries, size(now.Bytes))
	if now.Of.Entries > 0 {
		text = fmt.Sprintf("%s: %d of %d entries, %s of %s", now.Phase, now.Entries, now.Of.Entries, size(now.Bytes), size(now.Of.Bytes))
	}
	if now.Stored > 0 {
		text += fmt.Sprintf(", %s stored", size(now.Stored))
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.dirty = true
	} else if time.Since(p.last) >= 10*time.Second {
		fmt.Fprintln(p.w, text)
		p.last = time.Now()
	}
}

func (p *progress) end() {
	if p.dirty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
