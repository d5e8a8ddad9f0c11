package tail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watched is what is asked of the kernel. The library that is usual for this passes no close on; without it one cannot
// tell how often docker has emptied a log.
const watched = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_MOVED_FROM |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// queueBytes holds about two thousand events; the kernel's queue has the rest.
const queueBytes = 64 << 10

// Watcher tells which directories saw a change: one inotify instance, directories only. It belongs to one goroutine.
type Watcher struct {
	file    *os.File
	fd      int // of file, which lives as long
	dirs    map[string]int
	names   map[int][]string // several when one directory is mounted at several places
	batches chan Batch
	ending  chan struct{}
	ended   chan struct{}
}

// Batch is what the kernel had to tell at one moment.
type Batch struct {
	raw []byte
	// At is a moment before which nothing happened that was not told in this batch or before it; zero when there was more
	// to tell than the batch holds.
	At time.Time
}

// Event is one change. Name is the file's name in Dir.
type Event struct {
	Dir, Name string
	Moved     bool // names changed, not only content
	Made      bool // the name leads to another file than before
	Written   bool // the content changed
	Closed    bool // somebody who could write has closed it
}

// NewWatcher makes the inotify instance.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch log directories: %w", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, dirs: map[string]int{}, names: map[int][]string{},
		batches: make(chan Batch), ending: make(chan struct{}), ended: make(chan struct{})}
	go w.listen()
	return w, nil
}

// listen hands on what the kernel tells until the file is closed.
func (w *Watcher) listen() {
	defer close(w.ended)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	for buf := make([]byte, queueBytes); ; {
		var n int
		var at time.Time
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			at = time.Now() // before the kernel's queue is emptied
			n, failed = unix.Read(int(fd), buf)
			return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
		})
		if err != nil || failed != nil || n <= 0 {
			return
		}
		if n > queueBytes-unix.SizeofInotifyEvent-unix.NAME_MAX-1 {
			at = time.Time{} // perhaps the next one found no room
		}
		select {
		case w.batches <- Batch{slices.Clone(buf[:n]), at}:
		case <-w.ending:
			return
		}
	}
}

// Set makes dirs, and no others, the watched directories; added are those that were not before. The error names those
// that cannot be watched, which then only the rescan sees.
func (w *Watcher) Set(dirs map[string]bool) (added []string, err error) {
	for d := range w.dirs {
		if !dirs[d] {
			w.forget(d)
		}
	}
	for d := range dirs {
		if _, have := w.dirs[d]; have {
			continue
		}
		wd, e := unix.InotifyAddWatch(w.fd, d, watched)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("watch %s: %w", d, e))
			continue
		}
		w.dirs[d] = wd
		w.names[wd] = append(w.names[wd], d)
		added = append(added, d)
	}
	return added, err
}

// forget ends the watch of a directory, which may be gone already.
func (w *Watcher) forget(dir string) {
	wd := w.dirs[dir]
	delete(w.dirs, dir)
	if w.names[wd] = slices.DeleteFunc(w.names[wd], func(n string) bool { return n == dir }); len(w.names[wd]) > 0 {
		return
	}
	delete(w.names, wd)
	_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
}

// Batches are handed on as they come.
func (w *Watcher) Batches() <-chan Batch { return w.batches }

// Read gives the events of a batch in their order; overflowed tells that the kernel had more than it could keep. A
// directory that was itself removed or renamed is forgotten, so that Set watches it again when it is made anew.
func (w *Watcher) Read(b Batch) (events []Event, overflowed bool) {
	for raw := b.raw; len(raw) >= unix.SizeofInotifyEvent; {
		wd, mask := int(int32(binary.NativeEndian.Uint32(raw))), binary.NativeEndian.Uint32(raw[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(raw[12:]))
		name := strings.TrimRight(string(raw[unix.SizeofInotifyEvent:end]), "\x00")
		raw = raw[end:]
		overflowed = overflowed || mask&unix.IN_Q_OVERFLOW != 0
		is := func(bits uint32) bool { return mask&bits != 0 }
		for _, d := range slices.Clone(w.names[wd]) {
			switch {
			case is(unix.IN_DELETE_SELF | unix.IN_MOVE_SELF):
				w.forget(d)
				events = append(events, Event{Dir: d, Moved: true})
			case name != "":
				events = append(events, Event{Dir: d, Name: name, Moved: is(unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE),
					Made: is(unix.IN_CREATE | unix.IN_MOVED_TO), Written: is(unix.IN_MODIFY), Closed: is(unix.IN_CLOSE_WRITE)})
			}
		}
	}
	return events, overflowed
}

// Close ends the instance.
func (w *Watcher) Close() error {
	close(w.ending)
	err := w.file.Close()
	<-w.ended
	return err
}
