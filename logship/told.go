package logship

import (
	"path"
	"strings"

	"github.com/fairlead-dev/fairlead/logship/tail"
)

// told takes in what the kernel has to tell of the watched directories. Each log is looked at once, however often it was
// written to.
func (f *follower) told(b tail.Batch) {
	events, overflowed := f.watch.Read(b)
	news, globs, moved := map[*stream]look{}, map[*glob]bool{}, false
	for _, e := range events {
		if e.Moved {
			for _, g := range f.globDirs[e.Dir] {
				globs[g], moved = true, true
			}
		}
		for _, s := range f.byDir[e.Dir] {
			news[s] = max(news[s], s.told(e))
		}
	}
	for g := range globs {
		f.scanGlob(g)
	}
	for s, how := range news {
		if how == older {
			s.wake()
		}
		if how == content && f.touch(s) || how == names && f.look(s) {
			f.unseen(s, b.At)
		}
	}
	if moved {
		f.rewatch()
	}
	if !b.At.IsZero() {
		f.until = b.At
	}
	if overflowed {
		f.overflowed()
	}
}

// look is how closely a log has to be looked at.
type look int

const (
	nothing look = iota
	older        // an older generation is still written to
	content
	names
)

// told is called with each change in the log's directory.
func (s *stream) told(e tail.Event) look {
	base := path.Base(s.src.Path)
	if !strings.HasPrefix(e.Name, base) {
		return nothing
	}
	if e.Name == base && s.lives != nil {
		s.lives.event(e)
	}
	switch {
	case e.Moved:
		return names
	case e.Name == base:
		return content
	}
	return older
}

// overflowed looks at everything, since nobody knows what was not told.
func (f *follower) overflowed() {
	f.l.overflows.Add(1)
	f.log.Warn("file events were lost; looking at every log")
	f.scan()
	f.lookAll()
	for _, s := range f.streams {
		if s.lives != nil {
			s.lives.overflowed()
		}
	}
}
