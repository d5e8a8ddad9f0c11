// Package diskuse estimates what directory trees take on disk: the writable layers and volumes of containers. Walking a
// tree of a million files takes seconds, so that is done in the background, slowly, and never by a scrape; each estimate
// says when it was made. Where the file system keeps count itself (a btrfs subvolume under quota, a project of XFS or ext4)
// nothing is walked.
//
//	Want(paths) ─> Run: one tree after the other, resting between pieces ─> Get(path): the last estimate
//
// It owns nothing on the host. After a crash the first estimates come with the first walk.
package diskuse

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Estimate is what one tree takes.
type Estimate struct {
	Bytes, Inodes uint64 // blocks that are allocated, and files of all kinds; a file with several names counts once
	// What its file system has in all, and free; 0 where it does not say (btrfs counts no inodes).
	TotalBytes, TotalInodes, FreeInodes uint64
	Major, Minor                        uint32 // of the device
	// Counted tells that the file system itself has counted the bytes. Inodes is then 0 where it is unknown.
	Counted bool
	At      time.Time
}

// Estimator keeps an estimate of each tree that is wanted. It is safe for concurrent use.
type Estimator struct {
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex
	want []string
	have map[string]Estimate
	more chan struct{} // has a token when something is wanted that was not
}

// New makes an Estimator that walks each tree once in every. It starts nothing.
func New(every time.Duration, now func() time.Time) *Estimator {
	return &Estimator{every: every, now: now, have: map[string]Estimate{}, more: make(chan struct{}, 1)}
}

// Want says which trees are to be known from now on; estimates of others are forgotten. It does not block.
func (e *Estimator) Want(paths []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for path := range e.have {
		if !slices.Contains(paths, path) {
			delete(e.have, path)
		}
	}
	for _, path := range paths {
		if !slices.Contains(e.want, path) {
			select {
			case e.more <- struct{}{}:
			default:
			}
		}
	}
	e.want = slices.Clone(paths)
}

// Get gives the last estimate of the tree, if there is one. It does not block.
func (e *Estimator) Get(path string) (Estimate, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	got, ok := e.have[path]
	return got, ok
}

// Run makes estimates until ctx ends. It rests twenty times as long as it works, so it takes a twentieth of a processor
// while it walks, and nothing between.
func (e *Estimator) Run(ctx context.Context) {
	for ctx.Err() == nil {
		path, wait := e.next()
		if path == "" {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-e.more:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		got, err := e.walk(ctx, path)
		if ctx.Err() != nil {
			return
		}
		e.mu.Lock()
		if slices.Contains(e.want, path) {
			if err != nil { // what is left of it is no estimate; it is tried again in its time
				got = Estimate{At: e.now()}
			}
			e.have[path] = got
		}
		e.mu.Unlock()
	}
}

// next gives the tree that is due, or for how long none is.
func (e *Estimator) next() (path string, wait time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	wait = e.every
	for _, p := range e.want {
		got, ok := e.have[p]
		if !ok {
			return p, 0
		}
		every := e.every
		if got.Counted { // asking costs next to nothing
			every = min(every, time.Minute)
		}
		if left := got.At.Add(every).Sub(e.now()); left <= 0 {
			return p, 0
		} else if left < wait {
			wait = left
		}
	}
	return "", wait
}

// piece is how many files are looked at between two rests, and how many names are in memory at once: a directory may
// have a million.
const piece, restFor = 500, 20

// longestRest bounds a rest: on a busy machine a piece takes long because it waits, not because it works.
const longestRest = 200 * time.Millisecond

// walk looks at every file of the tree that is on the tree's own file system. A file that goes away meanwhile counts
// nothing.
func (e *Estimator) walk(ctx context.Context, root string) (Estimate, error) {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return Estimate{}, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	w := walk{out: Estimate{Major: unix.Major(top.Dev), Minor: unix.Minor(top.Dev)}, dev: top.Dev, twice: map[uint64]bool{}}
	var all unix.Statfs_t
	if unix.Statfs(root, &all) == nil {
		w.out.TotalBytes, w.out.TotalInodes, w.out.FreeInodes = all.Blocks*uint64(all.Bsize), all.Files, all.Ffree
	}
	if bytes, ok := qgroup(root); ok {
		w.out.Bytes, w.out.Counted, w.out.At = bytes, true, e.now()
		return w.out, nil
	}
	if bytes, inodes, ok := project(root); ok {
		w.out.Bytes, w.out.Inodes, w.out.Counted, w.out.At = bytes, inodes, true, e.now()
		return w.out, nil
	}
	w.count(root)
	var err error
	for err == nil && len(w.dirs) > 0 {
		dir := w.dirs[len(w.dirs)-1]
		w.dirs = w.dirs[:len(w.dirs)-1]
		err = w.dir(ctx, dir)
	}
	w.out.At = e.now()
	return w.out, err
}

// walk is one walk under way.
type walk struct {
	out   Estimate
	dev   uint64
	dirs  []string        // still to be looked at
	twice map[uint64]bool // files with several names
}

func (w *walk) dir(ctx context.Context, dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		began := time.Now()
		names, err := f.Readdirnames(piece)
		for _, name := range names {
			w.count(filepath.Join(dir, name))
		}
		if err := rest(ctx, min(restFor*time.Since(began), longestRest)); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// count takes the file at path into account, and into dirs when it is a directory.
func (w *walk) count(path string) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Dev != w.dev || w.twice[st.Ino] {
		return // gone, or another file system is mounted here
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir:
		w.dirs = append(w.dirs, path)
	case st.Nlink > 1:
		w.twice[st.Ino] = true
	}
	w.out.Bytes += uint64(st.Blocks) * 512
	w.out.Inodes++
}

func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
