package logship

import "time"

// calmTicks is how many ticks after the last news the rounds over all streams go on; what `logs ls` shows as rates has
// faded by then. After it they are as rare as the rescans: 500 files that nobody writes cost next to nothing.
const calmTicks = 3 * rescanTick

// calm is what tells the follower that nothing happens. News come as events and set stirred; what shippers send shows in
// their counts; what has to be tried again, or is not yet let go of, sets stirred too.
type calm struct {
	stirred bool
	sent    uint64
	from    int       // the tick of which on it is calm
	inside  []*stream // as the last round found them: files inside containers
	asleep  bool      // until the next rescan, unless something stirs
}

// calmAt tells whether tick n may pass over streams of which events would have told.
func (f *follower) calmAt(n int) bool {
	sent := uint64(0)
	for _, s := range f.shippers {
		sent += s.total.sent.Load() + s.total.acked.Load()
	}
	if f.stirred || sent != f.sent || f.starved || len(f.pending) > 0 {
		f.stirred, f.sent, f.from = false, sent, n+calmTicks
	}
	return n >= f.from
}

// next gives the tick after n. When it is calm and nothing has to be looked at with every tick, that is the next rescan:
// each tick wakes the Go runtime too, and costs more than what there is to do in it.
func (f *follower) next(t *time.Ticker, n int) int {
	if n >= f.from && !f.stirred && len(f.inside) == 0 && f.pumps.none() && f.visits.none() {
		f.asleep = true
		left := rescanTick - n%rescanTick
		t.Reset(time.Duration(left) * f.l.tick)
		return n + left
	}
	f.awake(t)
	return n + 1
}

// stir says that something happened: the next tick comes soon.
func (f *follower) stir(t *time.Ticker) {
	f.stirred = true
	f.awake(t)
}

func (f *follower) awake(t *time.Ticker) {
	if f.asleep {
		f.asleep = false
		t.Reset(f.l.tick)
	}
}
