package logship

import (
	"math"
	"sync/atomic"
	"time"
)

// rate is how many a second there were lately: a mean whose weight halves within some seconds.
type rate struct {
	perSecond atomic.Uint64 // a float's bits
	count     uint64
	at        time.Time
}

const rateHalf = 5 * time.Second

// see takes in the count as it is now. It is for one goroutine; get is for all.
func (r *rate) see(count uint64, now time.Time) {
	if took := now.Sub(r.at).Seconds(); !r.at.IsZero() && took > 0 {
		old := math.Exp2(-took / rateHalf.Seconds())
		r.perSecond.Store(math.Float64bits(r.get()*old + float64(count-r.count)/took*(1-old)))
	}
	r.count, r.at = count, now
}

func (r *rate) get() float64 { return math.Float64frombits(r.perSecond.Load()) }

// rates brings what `logs ls` shows up to date.
func (f *follower) rates() {
	now := time.Now()
	for _, s := range f.streams {
		for _, c := range s.cursors {
			c.rate.see(c.count.acked.Load(), now)
		}
	}
}
