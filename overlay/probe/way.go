package probe

import (
	"fmt"
	"time"
)

const (
	// small is the size of a probe that passes wherever IP does.
	small = 64
	// least is the size that every IPv4 host takes (RFC 791, section 3.1); nothing below is looked for.
	least = 576
	// lossesToFall is how many probes in a row are lost when a path counts as broken.
	lossesToFall = 3
	// patience is how long an answer may take. Three losses a second apart, and the path falls within 4 s of the fault.
	patience = 800 * time.Millisecond
	// often is the interval of probes where something is to be found out; seldom where nothing has answered for long, or
	// where the path is not the one in use.
	often  = time.Second
	seldom = 10 * time.Second
	// fullEvery is the interval of full-size probes, lookEvery of looks whether a narrow path has widened.
	fullEvery = 5 * time.Second
	lookEvery = 3 * time.Minute
	// giveUp is the number of losses from which on a path is probed seldom.
	giveUp = 10
)

// way is one path to one peer, with its probes.
type way struct {
	hop Hop
	Way
	generation               int // of the hop: what was sent to a former one does not count
	next, nextFull, nextLook time.Time
	fullLost                 int // full-size probes in a row, while small ones are answered
	search                   *search
}

// ask is one probe: its size, and the round of a search that it belongs to, or 0.
type ask struct{ size, round int }

// due gives what is to be sent now. every is the interval that the number of peers allows.
func (w *way) due(now time.Time, every time.Duration) (asks []ask) {
	if !now.Before(w.next) {
		w.next = now.Add(every)
		asks = append(asks, ask{size: small})
	}
	if w.Streak <= 0 {
		return asks // what a small packet does not pass a large one need not try
	}
	if w.search == nil && w.MTU < w.Full && !now.Before(w.nextLook) {
		w.search = &search{lo: w.MTU, hi: w.Full + 1}
	}
	switch {
	case w.search != nil && w.search.waiting == 0:
		asks = append(asks, w.search.begin()...)
	case w.search == nil && !now.Before(w.nextFull):
		w.nextFull = now.Add(max(fullEvery, every))
		asks = append(asks, ask{size: w.MTU})
	}
	return asks
}

// wakes gives when something may be due.
func (w *way) wakes() time.Time {
	at := w.next
	if w.Streak > 0 && w.search == nil && w.nextFull.Before(at) {
		at = w.nextFull
	}
	if w.Streak > 0 && w.search != nil && w.search.waiting == 0 {
		at = time.Time{}
	}
	return at
}

func (w *way) answered(now time.Time, a ask, rtt time.Duration) {
	switch {
	case a.round > 0:
		w.searched(now, a, true)
	case a.size == small:
		w.Streak, w.RTT = max(w.Streak, 0)+1, rtt
	default:
		w.fullLost = 0
	}
}

func (w *way) missed(now time.Time, a ask) {
	w.Lost++
	switch {
	case a.round > 0:
		w.searched(now, a, false)
	case a.size == small:
		w.Streak = min(w.Streak, 0) - 1
		if w.Silent() {
			w.search, w.fullLost = nil, 0
		}
	case w.Streak > 0 && a.size == w.MTU && w.search == nil:
		w.fullLost++
		w.nextFull = now.Add(often)
		if w.fullLost >= lossesToFall {
			w.search = &search{lo: least, hi: w.MTU + 1}
		}
	}
}

func (w *way) searched(now time.Time, a ask, passed bool) {
	if w.search == nil || a.round != w.search.round || !w.search.result(a.size, passed) {
		return
	}
	done, whole := w.search.next()
	if !done {
		return
	}
	if whole {
		w.MTU = w.search.lo
	}
	w.search, w.fullLost = nil, 0
	w.nextFull, w.nextLook = now.Add(fullEvery), now.Add(lookEvery)
}

// resize takes over what the largest packet should be.
func (w *way) resize(full int) {
	if w.MTU == w.Full || w.MTU > full {
		w.MTU = full
	}
	w.hop.Full, w.Full = full, full
}

func bytes(n int) string { return fmt.Sprintf("%d bytes", n) }
