// Package state keeps what must outlive the agent, under one state directory with a sub-directory per part.
//
// It owns two forms. A promise (a leased block, a log position) is a small file, replaced whole: temp file, fsync,
// rename, fsync of the directory. The Journal is appended to and belongs to one boot. Both are text that `cat` shows.
// After a crash a promise is the old or the new one, never a mixture; a file that cannot be read is moved aside with
// one loud message and the agent starts without it.
package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Format is the version of the layout below the state directory that this build writes.
const Format = 1

// ErrNewer is returned for a state directory that a newer build has written.
var ErrNewer = errors.New("state directory was written by a newer version")

// Dir is one directory of state. Its methods are safe for concurrent use on different names.
type Dir struct {
	path string
	log  *slog.Logger
	// step is called before each system call that changes the disk; tests crash in it.
	step func(what string)
}

// Open makes path when it is missing and checks who wrote it. It fails with ErrNewer when that was a newer build.
func Open(path string, log *slog.Logger) (*Dir, error) {
	d := &Dir{path: path, log: log, step: func(string) {}}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	if err := d.checkFormat(); err != nil {
		return nil, fmt.Errorf("open state directory %s: %w", path, err)
	}
	return d, nil
}

func (d *Dir) checkFormat() error {
	b, err := os.ReadFile(d.File("FORMAT"))
	if errors.Is(err, fs.ErrNotExist) {
		return d.Write("FORMAT", fmt.Appendf(nil, "%d\n", Format))
	}
	if err != nil {
		return err
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil:
		d.aside("FORMAT", fmt.Errorf("%q is not a format number", bytes.TrimSpace(b)))
		return d.Write("FORMAT", fmt.Appendf(nil, "%d\n", Format))
	case have > Format:
		return fmt.Errorf("%w: it has format %d, this build knows %d; start the newer build, or move the directory away to begin anew", ErrNewer, have, Format)
	}
	return nil
}

// Sub gives the sub-directory of a part, made when it is missing.
func (d *Dir) Sub(name string) (*Dir, error) {
	sub := &Dir{path: d.File(name), log: d.log, step: d.step}
	if err := os.MkdirAll(sub.path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	return sub, nil
}

// Path is the directory itself.
func (d *Dir) Path() string { return d.path }

// File gives the path of name in the directory.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// Write replaces the file name by data, durably: when it returns nil, data survives a power cut; when it fails or the
// agent dies in it, the former content stands. It blocks for two fsyncs.
func (d *Dir) Write(name string, data []byte) (err error) {
	tmp := d.File("." + name + ".new")
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", d.File(name), err)
		}
	}()
	d.step("create")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	d.step("write")
	_, err = f.Write(data)
	if err == nil {
		d.step("sync")
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	d.step("rename")
	if err := os.Rename(tmp, d.File(name)); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	d.step("sync directory")
	return syncDir(d.path)
}

// WriteJSON replaces name by v as indented JSON; see Write.
func (d *Dir) WriteJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", d.File(name), err)
	}
	return d.Write(name, append(b, '\n'))
}

// ReadJSON fills v from name. It answers false when there is no such file, and also when the file is torn or foreign:
// that one is moved aside and said aloud. Any other fault (permission, I/O) is an error, because the promise may
// stand there unread.
func (d *Dir) ReadJSON(name string, v any) (bool, error) {
	b, err := os.ReadFile(d.File(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read state: %w", err)
	}
	if !json.Valid(b) { // checked first: a torn file must not leave v half filled
		d.aside(name, errors.New("not valid JSON: torn or foreign"))
		return false, nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		d.aside(name, err)
		return false, nil
	}
	return true, nil
}

// Remove deletes name durably. It succeeds when name is already gone.
func (d *Dir) Remove(name string) error {
	d.step("remove")
	err := os.Remove(d.File(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return syncDir(d.path)
}

// aside renames a file that cannot be understood so that it is kept for a person and stands in nobody's way.
func (d *Dir) aside(name string, why error) {
	to := d.File(asideName(name))
	if err := os.Rename(d.File(name), to); err != nil {
		why = errors.Join(why, err)
	}
	d.log.Error("state file could not be read and was moved aside; starting without it",
		"path", d.File(name), "moved_to", to, "err", why)
}

// CopyAside keeps a copy of name for a person, because its owner goes on without a part of it, and says so aloud.
func (d *Dir) CopyAside(name string, why error) error {
	b, err := os.ReadFile(d.File(name))
	if err != nil {
		return fmt.Errorf("copy state aside: %w", err)
	}
	to := asideName(name)
	if err := d.Write(to, b); err != nil {
		return err
	}
	d.log.Error("a copy of a state file was set aside", "path", d.File(name), "copied_to", d.File(to), "err", why)
	return nil
}

func asideName(name string) string {
	return fmt.Sprintf("%s.unreadable-%s", name, time.Now().UTC().Format("20060102T150405.000000000"))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
