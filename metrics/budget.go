package metrics

import "github.com/fairlead-dev/fairlead/agent/stat"

// budget bounds the series of one page. The page is written metric by metric, so what goes beyond a bound are the last
// metrics of the table, and of those the last devices and interfaces.
type budget struct {
	each, all int // 0 is no bound
	used      int
	of        []int // by slot
	dropped   *stat.Counter
}

// begin begins a page of so many slots.
func (b *budget) begin(slots int) {
	if cap(b.of) < slots {
		b.of = make([]int, slots+slots/4)
	}
	b.of = b.of[:slots]
	clear(b.of)
	b.used = 0
}

// take tells whether slot may have one more series.
func (b *budget) take(slot int) bool {
	if b.each > 0 && b.of[slot] >= b.each || b.all > 0 && b.used >= b.all {
		b.dropped.Inc()
		return false
	}
	b.of[slot]++
	b.used++
	return true
}
