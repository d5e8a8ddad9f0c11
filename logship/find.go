package logship

import (
	"cmp"
	"maps"
	"math"
	"path"
	"reflect"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// glob is a pattern whose matches are streams of their own.
type glob struct {
	inside
	owner  owner
	origin *sink.Origin // of its container; nil for the host's own files
	dirs   []string
}

// apply takes in a snapshot of the inventory.
func (f *follower) apply(snap *container.Snapshot) {
	f.snap = snap
	present, gone := f.living(snap)
	for i := range snap.Containers {
		f.container(&snap.Containers[i])
	}
	for i := range snap.Gone {
		if c := &snap.Gone[i].Container; gone[owner{c.Runtime, c.ID}] {
			f.container(c)
		}
	}
	f.pumps.apply(snap, func(key string) bool { _, done := f.closed[key]; return done }, f.add)
	f.scan()
	f.endGone(snap)
	maps.DeleteFunc(f.closed, func(_ string, o owner) bool { return !gone[o] })
	maps.DeleteFunc(f.said, func(o owner, _ bool) bool { return !present[o] })
	f.rewatch()
}

// living tells which containers there are, and which of those that are remembered are not.
func (f *follower) living(snap *container.Snapshot) (present, gone map[owner]bool) {
	present, gone = map[owner]bool{}, map[owner]bool{}
	for i := range snap.Containers {
		present[owner{snap.Containers[i].Runtime, snap.Containers[i].ID}] = true
	}
	for i := range snap.Gone {
		if o := (owner{snap.Gone[i].Runtime, snap.Gone[i].ID}); !present[o] {
			gone[o] = true
		}
	}
	return present, gone
}

// endGone ends the streams of containers that are gone and of which nothing more comes.
func (f *follower) endGone(snap *container.Snapshot) {
	present, gone := f.living(snap)
	for key, s := range f.streams {
		// A runtime that does not answer has not said that the container is gone.
		if s.owner != (owner{}) && !present[s.owner] && (gone[s.owner] || snap.Answered(s.owner.Runtime)) && !f.pumps.busy(key) && !f.visits.busy(s.owner) {
			f.end(key)
		}
	}
}

// container makes the stream of a container's output known.
func (f *follower) container(c *container.Container) {
	if key, src, ok := output(f.l.deps.Host, c); ok {
		f.add(key, src, owner{c.Runtime, c.ID})
	}
}

// scan looks for files that match the globs.
func (f *follower) scan() {
	f.ask()
	f.globDirs = map[string][]*glob{}
	for _, g := range f.globs {
		f.scanGlob(g)
	}
}

func (f *follower) scanGlob(g *glob) {
	matches, dirs, err := g.root.Glob(g.pattern)
	if err != nil && g.origin == nil { // a container's root may vanish at any time
		f.log.Warn("directory of logs could not be read", "path", g.pattern, "err", err)
	}
	g.dirs = dirs
	for _, d := range dirs {
		if !slices.Contains(f.globDirs[d], g) {
			f.globDirs[d] = append(f.globDirs[d], g)
		}
	}
	for _, m := range matches {
		key, name := g.key(m), g.name(m)
		if f.streams[key] == nil {
			if tail.Rotated(m, func(p string) bool { return f.streams[g.key(p)] != nil }) || f.doubtful(m, key) {
				continue // its path is away for a moment, in the middle of a rotation
			}
			if id, err := g.root.Identify(m); err != nil || !g.root.Regular(m) || f.taken(id) {
				continue
			}
		}
		o := &sink.Origin{Host: f.l.deps.Host}
		if g.origin != nil {
			copied := *g.origin
			o = &copied
		}
		o.Path = name
		f.add(key, ledger.Source{Root: g.root, Path: m, Format: container.Plain, Origin: o}, g.owner)
	}
}

// doubtful tells whether a match looks like an older generation of a path that nobody has seen. It is believed to be a
// log of its own only after settleTime.
func (f *follower) doubtful(match, key string) bool {
	if !tail.Rotated(match, func(string) bool { return true }) {
		return false
	}
	since, ok := f.pending[key]
	if !ok {
		since = time.Now()
		f.pending[key] = since
	}
	if time.Since(since) < settleTime {
		return true
	}
	delete(f.pending, key)
	return false
}

// key is the stream's name of a match.
func (g *glob) key(match string) string {
	if g.origin == nil {
		return "file:" + g.name(match)
	}
	return g.origin.Runtime + "/" + g.origin.ID + ":" + g.name(match)
}

// taken tells whether a file belongs to a stream already.
func (f *follower) taken(id tail.Identity) bool {
	for _, s := range f.streams {
		if s.series.Has(id) {
			return true
		}
	}
	return false
}

// add begins to follow a stream unless it is followed, or was read to its end already.
func (f *follower) add(key string, src ledger.Source, o owner) {
	if s, have := f.streams[key]; have {
		// A name or an address may become known later than the log.
		if !reflect.DeepEqual(s.origin.Load(), src.Origin) {
			s.origin.Store(src.Origin)
			f.rule(s, src.Origin)
		}
		f.writer(s, src)
		return
	}
	if _, done := f.closed[key]; done {
		return
	}
	if d := f.l.deps.Descriptors; d != nil && !d.Acquire(1) {
		if !f.starved {
			f.log.Warn("no descriptor is left for another log; it waits", "stream", key)
		}
		f.starved = true
		return
	}
	f.starved = false
	if !f.book.Known(key) {
		if err := f.book.AddStream(key, src); err != nil {
			f.log.Warn("a new stream could not be saved", "stream", key, "err", err)
		}
	}
	s := &stream{key: key, src: src, owner: o, nudge: f.ring, spooled: src.Path == f.l.spoolFile(key)}
	s.origin.Store(src.Origin)
	f.rule(s, src.Origin)
	var saved []tail.Place
	var positions []ledger.Position
	s.seen = f.book.Seen(key)
	for _, g := range s.seen {
		saved = append(saved, g.Place)
	}
	for _, sh := range f.shippers {
		if p, ok := f.book.Position(sh.name, key); ok {
			positions = append(positions, p)
			saved = append(saved, p.Place)
			if p.From != nil {
				saved = append(saved, *p.From)
			}
			saved = append(saved, p.Left...)
		}
	}
	taken := func(id tail.Identity) bool {
		for _, other := range f.streams {
			if other != s && other.series.Has(id) {
				return true
			}
		}
		return false
	}
	s.series = tail.NewSeries(src.Root, src.Path, f.pins.For(tail.Whose{Runtime: string(o.Runtime), ID: string(o.ID)}), !s.isFile(), taken, saved)
	s.countOn(positions)
	s.series.Unpack(f.l.deps.State.Path(), cmp.Or(int64(f.l.cfg.PinsBytes), math.MaxInt64))
	for _, sh := range f.shippers {
		s.cursors = append(s.cursors, &cursor{stream: s, sink: sh, dec: decode.New(src.Format, decode.MaxLine)})
	}
	if _, err := s.series.Look(); err != nil {
		f.log.Warn("log could not be opened; it is tried again", "stream", key, "path", src.Path, "err", err)
	}
	f.writer(s, src)
	for _, c := range s.cursors {
		p, known := f.book.Position(c.sink.name, key)
		if c.start(p, known, s.seen); c.count.lost.Load() > 0 {
			f.log.Warn("lines were destroyed before a sink had them, while no agent ran", "stream", key, "sink", c.sink.name, "bytes", c.count.lost.Load())
		}
		c.sink.moved(c) // a crash then knows where this began, and counts what was lost once
	}
	s.summed = f.book.Sum(key)
	f.streams[key] = s
	f.news = true
	if dir, err := src.Root.Real(path.Dir(src.Path)); err == nil {
		s.dir = dir
	}
	s.wake()
}

func ownerOf(o *sink.Origin) owner {
	if o == nil {
		return owner{}
	}
	return owner{container.Runtime(o.Runtime), container.ID(o.ID)}
}
