package logship

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math"
	"os"
	"path"
	"reflect"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/ledger"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/tail"
)

// The rhythm of looking without being told. Writes through an overlay mount do not reach an inotify watch on the upper
// directory, so files inside containers are looked at (one fstat each) with every tick.
const (
	tickTime   = 500 * time.Millisecond
	rescanTick = 20 // ticks from one look at every size and glob to the next; at every path with each third
	syncTick   = 2  // ticks from one fsync of the positions to the next
	settleTick = 4
	settleTime = settleTick * tickTime
	pinTime    = time.Second // what logrotate takes from renaming a file to opening it for packing
)

// follower finds streams, keeps them current and lets go of them. All of it is one goroutine's.
type follower struct {
	l        *Logship
	log      *slog.Logger
	book     *ledger.Book
	shippers []*shipper
	watch    *tail.Watcher
	pins     *tail.Pins
	pumps    *pumps
	visits   *visits
	nudge    chan struct{}

	streams    map[string]*stream
	closed     map[string]owner // streams read to the end, while the inventory still has their container's tombstone
	said       map[owner]bool   // containers whose files cannot be reached
	globs      []*glob
	globDirs   map[string][]*glob
	byDir      map[string][]*stream
	pending    map[string]time.Time // matches that may be somebody's older generation
	starved    bool                 // a log waits for a descriptor
	unmirrored bool                 // said once
	until      time.Time            // of what was before this, the kernel has told
	full       bool                 // what is kept on the disk has reached its bound
	news       bool                 // streams changed since publish
	snap       *container.Snapshot  // the newest; nil before there is one
	calm
}

// glob is a pattern whose matches are streams of their own.
type glob struct {
	inside
	owner  owner
	origin *sink.Origin // of its container; nil for the host's own files
	dirs   []string
}

func newFollower(l *Logship, book *ledger.Book, shippers []*shipper, watch *tail.Watcher) *follower {
	return &follower{l: l, log: l.deps.Log, book: book, shippers: shippers, watch: watch, pins: l.pins(book.Epoch()),
		nudge: make(chan struct{}, 1), streams: map[string]*stream{}, closed: map[string]owner{}, said: map[owner]bool{}, pending: map[string]time.Time{}}
}

func (f *follower) run(ctx context.Context) error {
	if len(f.shippers) == 0 {
		<-ctx.Done() // nobody wants a line
		return nil
	}
	for _, file := range f.l.cfg.Files {
		f.globs = append(f.globs, &glob{inside: inside{root: tail.Host, pattern: file.Path, strip: "/", prefix: "/"}})
	}
	for key, src := range f.book.Streams() {
		if o := ownerOf(src.Origin); o != (owner{}) || f.configured(src.Path) || f.l.configuredSpool(src.Path) {
			f.add(key, src, o)
			continue
		}
		if err := f.book.DropStream(key); err != nil {
			return err
		}
		f.pumps.remove(src.Path)
		_ = os.Remove(f.l.blockFile(key))
	}
	f.pumps.journals(func(key string, src ledger.Source) { f.add(key, src, owner{}) })
	f.pins.Sweep()
	f.scan()
	f.rewatch()

	snapshots := make(chan *container.Snapshot)
	g := agent.NewGroup(ctx)
	g.Go(func(ctx context.Context) error {
		for s := range f.l.deps.Inventory.Follow(ctx) {
			select {
			case snapshots <- s:
			case <-ctx.Done():
			}
		}
		return nil
	})
	g.Go(func(ctx context.Context) error { return f.loop(ctx, snapshots) })
	return g.Wait()
}

func (f *follower) loop(ctx context.Context, snapshots <-chan *container.Snapshot) error {
	tick := time.NewTicker(f.l.tick)
	defer tick.Stop()
	for n := 1; ; {
		f.publish()
		select {
		case <-ctx.Done():
			f.lookAll() // whatever was written until now is delivered before the end
			return nil
		case s := <-snapshots:
			f.stir(tick)
			f.apply(s)
		case b := <-f.watch.Batches():
			f.stir(tick)
			f.told(b)
		case <-f.nudge:
			f.stir(tick)
			f.visited()
			f.reap()
		case <-tick.C:
			f.tick(n)
			n = f.next(tick, n)
		}
	}
}

// configured tells whether a file of the host is still asked for.
func (f *follower) configured(p string) bool {
	return slices.ContainsFunc(f.l.cfg.Files, func(file File) bool {
		ok, _ := path.Match(path.Clean(file.Path), p)
		return ok
	})
}

func (f *follower) tick(n int) {
	for _, key := range f.pumps.takeEnded() {
		f.end(key)
	}
	f.visited()
	calm := f.calmAt(n)
	if calm && n%rescanTick != 0 {
		for _, s := range f.inside {
			f.touch(s)
		}
		return
	}
	f.inside = f.inside[:0]
	for _, s := range f.streams {
		if s.isFile() && s.owner != (owner{}) {
			f.inside = append(f.inside, s)
			f.touch(s)
		} else {
			f.mirror(s)
		}
	}
	if n%rescanTick == 0 || f.starved || n%settleTick == 0 && len(f.pending) > 0 {
		maps.DeleteFunc(f.pending, func(_ string, since time.Time) bool { return time.Since(since) > 2*settleTime })
		f.scan()
		f.remember(true)
		if n%(3*rescanTick) == 0 || f.starved {
			f.lookAll()
		} else {
			f.touchAll()
		}
		f.rewatch()
	}
	if n%syncTick == 0 && !calm { // else there is nothing to save or to let go of: 500 fstats
		f.rates()
		f.release()
		f.bound()
	}
}

// end says that nobody writes to a stream any more.
func (f *follower) end(key string) {
	if s := f.streams[key]; s != nil && !s.ended.Swap(true) {
		f.stirred = true
		f.look(s)
		s.wake()
	}
}

// release fsyncs the positions and then lets go of generations that no saved position needs.
func (f *follower) release() {
	need := make(map[*stream]int64, len(f.streams))
	for _, s := range f.streams {
		if s.series.Generations() > 1 {
			need[s] = s.behind()
			f.stirred = true // it is looked at anew each time
		}
	}
	f.sum()
	f.remember(false)
	if err := f.book.Sync(); err != nil {
		f.stirred = true
		f.log.Warn("log positions could not be made durable; old generations are kept", "err", err)
		return
	}
	for s, seq := range need {
		s.release(seq)
		s.series.Pin(pinTime)
		s.wake() // what is still written under another name, or under none, makes no event that leads here
	}
	f.reap()
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

func (f *follower) close() {
	f.remember(true)
	for _, s := range f.streams {
		f.drop(s, false)
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

// publish makes the streams visible to status.
func (f *follower) publish() {
	if !f.news {
		return
	}
	f.news = false
	f.l.mu.Lock()
	f.l.streams = maps.Clone(f.streams)
	f.l.mu.Unlock()
}

func ownerOf(o *sink.Origin) owner {
	if o == nil {
		return owner{}
	}
	return owner{container.Runtime(o.Runtime), container.ID(o.ID)}
}
