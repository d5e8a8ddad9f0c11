package logship

import (
	"os"
	"path"
	"time"
)

// touch costs one fstat, look also asks what the path leads to now. They tell whether that worked.
func (f *follower) touch(s *stream) bool {
	f.mirror(s)
	defer f.rescued(s)
	changed, err := s.series.Touch()
	if changed || err != nil || s.series.Generations() > 1 {
		s.wake()
	}
	return err == nil
}

func (f *follower) look(s *stream) bool {
	defer f.rescued(s)
	if s.isFile() {
		_, behind := s.unread()
		s.series.Patient(!behind)
	}
	changed, err := s.series.Look()
	if err != nil {
		f.log.Warn("log could not be looked at; it is tried again", "stream", s.key, "err", err)
	}
	if changed || err != nil || s.series.Generations() > 1 {
		s.wake()
	}
	return err == nil
}

func (f *follower) lookAll() {
	now := time.Now()
	for _, s := range f.streams {
		f.look(s)
		if s.isFile() && s.gone(now) && !s.ended.Swap(true) {
			s.wake()
		}
	}
}

// rescued saves the positions in a file that was truncated as positions in its copy.
func (f *follower) rescued(s *stream) {
	if n := s.series.Rescues(); n != s.rescues {
		s.rescues = n
		for _, c := range s.cursors {
			c.sink.moved(c)
		}
	}
}

// mirror copies what a program is known to destroy by truncation while a sink is behind.
func (f *follower) mirror(s *stream) {
	if !s.series.Cuts() || f.l.cfg.MirrorBytes == 0 || f.full {
		return
	}
	from, behind := s.unread()
	if !behind {
		s.series.Unmirror()
		return
	}
	if _, err := s.series.Mirror(from, int64(f.l.cfg.MirrorBytes)); err != nil && !f.unmirrored {
		f.unmirrored = true
		f.log.Warn("a log that is truncated while a sink is behind could not be copied; what is destroyed is counted", "stream", s.key, "err", err)
	}
}

// touchAll sees growth of which no event tells, as on network file systems.
func (f *follower) touchAll() {
	for _, s := range f.streams {
		f.touch(s)
	}
}

// ring asks for reap. It is called by shippers and does not block.
func (f *follower) ring() {
	select {
	case f.nudge <- struct{}{}:
	default:
	}
}

// reap lets go of streams that every sink has in full.
func (f *follower) reap() {
	for key, s := range f.streams {
		if !s.ended.Load() || !s.finished() {
			continue
		}
		if err := f.book.DropStream(key); err != nil {
			f.log.Warn("the end of a stream could not be saved", "stream", key, "err", err)
			continue
		}
		f.drop(s, true)
		f.pumps.remove(s.src.Path)
		_ = os.Remove(f.l.blockFile(key)) // not there unless something was summed
		delete(f.streams, key)
		f.news = true
		if s.owner != (owner{}) {
			f.closed[key] = s.owner
		}
		f.rewatch()
	}
}

func (f *follower) drop(s *stream, pins bool) {
	s.series.Close(pins)
	if d := f.l.deps.Descriptors; d != nil {
		d.Release(1)
	}
}

// rewatch watches the directories of all streams and globs. What happened in a directory before it was watched was not
// told, so it is looked at once; that may find more to watch.
func (f *follower) rewatch() {
	for range 8 { // a tree that grows faster than we look is left to the next scan
		want := map[string]bool{}
		f.byDir = map[string][]*stream{}
		for _, s := range f.streams {
			if s.dir == "" {
				s.dir, _ = s.src.Root.Real(path.Dir(s.src.Path)) // not there yet, or no more
			}
			if s.dir != "" {
				want[s.dir] = true
				f.byDir[s.dir] = append(f.byDir[s.dir], s)
			}
		}
		for d := range f.globDirs {
			want[d] = true
		}
		added, err := f.watch.Set(want)
		if err != nil {
			f.log.Warn("some directories are not watched; their logs are seen by the slow look only", "err", err)
		}
		for _, d := range added {
			for _, g := range f.globDirs[d] {
				f.scanGlob(g)
			}
			for _, s := range f.byDir[d] {
				f.look(s)
				s.wake()
			}
		}
		if len(added) == 0 {
			return
		}
	}
}
