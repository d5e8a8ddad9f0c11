package logship

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/logship/ledger"
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

func (f *follower) close() {
	f.remember(true)
	for _, s := range f.streams {
		f.drop(s, false)
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
