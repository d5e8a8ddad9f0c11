package tail

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Watcher tells which directories saw a change: one inotify instance, directories only. It belongs to one goroutine.
type Watcher struct {
	notify *fsnotify.Watcher
	dirs   map[string]bool
}

// Event is one change. Name is the file's name in Dir; Moved means that names changed, not only content.
type Event struct {
	Dir, Name string
	Moved     bool
}

// NewWatcher makes the inotify instance.
func NewWatcher() (*Watcher, error) {
	n, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		return nil, fmt.Errorf("watch log directories: %w", err)
	}
	return &Watcher{notify: n, dirs: map[string]bool{}}, nil
}

// Set makes dirs, and no others, the watched directories; added are those that were not before. The error names those
// that cannot be watched, which then only the rescan sees.
func (w *Watcher) Set(dirs map[string]bool) (added []string, err error) {
	for d := range w.dirs {
		if !dirs[d] {
			_ = w.notify.Remove(d) // it may be gone already
			delete(w.dirs, d)
		}
	}
	for d := range dirs {
		if w.dirs[d] {
			continue
		}
		if e := w.notify.Add(d); e != nil {
			err = errors.Join(err, fmt.Errorf("watch %s: %w", d, e))
			continue
		}
		w.dirs[d] = true
		added = append(added, d)
	}
	return added, err
}

// Events are handed on as they come.
func (w *Watcher) Events() <-chan fsnotify.Event { return w.notify.Events }

// Errors carry overflows.
func (w *Watcher) Errors() <-chan error { return w.notify.Errors }

// Read turns what fsnotify says into an Event. A directory that was itself removed is forgotten, so that Set watches
// it again when it is made anew.
func (w *Watcher) Read(e fsnotify.Event) Event {
	if w.dirs[e.Name] && e.Has(fsnotify.Remove|fsnotify.Rename) {
		delete(w.dirs, e.Name)
		return Event{Dir: e.Name, Moved: true}
	}
	return Event{Dir: filepath.Dir(e.Name), Name: filepath.Base(e.Name), Moved: e.Has(fsnotify.Create | fsnotify.Remove | fsnotify.Rename)}
}

// Close ends the instance.
func (w *Watcher) Close() error { return w.notify.Close() }
