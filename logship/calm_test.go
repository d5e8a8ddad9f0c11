package logship

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWithoutNewsTheFollowerSleepsFromRescanToRescanUntilSomethingStirs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &shipper{}
		f := &follower{l: &Logship{tick: time.Second}, shippers: []*shipper{s}, pumps: &pumps{}, visits: &visits{}}
		f.stirred = true
		tick := time.NewTicker(f.l.tick)
		defer tick.Stop()
		n := 1
		passed := func() (ticks int, calm bool) {
			before := time.Now()
			<-tick.C
			calm = f.calmAt(n)
			n = f.next(tick, n)
			return int(time.Since(before) / f.l.tick), calm
		}
		for i := range calmTicks {
			if took, calm := passed(); took != 1 || calm {
				t.Fatalf("tick %d: after %d, calm %v", i, took, calm)
			}
		}
		passed() // the first that is calm
		passed() // to the next rescan
		for range 3 {
			if took, calm := passed(); took != rescanTick || !calm || (n-rescanTick)%rescanTick != 0 {
				t.Fatalf("after %d, calm %v, next is %d", took, calm, n)
			}
		}
		time.Sleep(3 * time.Second)
		f.stir(tick)
		if took, calm := passed(); took != 1 || calm {
			t.Fatalf("stirred: after %d, calm %v", took, calm)
		}
		for range 2 * calmTicks { // what is sent without an event of a file keeps it awake
			s.total.sent.Add(1)
			if took, calm := passed(); took != 1 || calm {
				t.Fatalf("sending: after %d, calm %v", took, calm)
			}
		}
		f.inside = []*stream{{}}
		for range 3 * calmTicks {
			if took, _ := passed(); took != 1 {
				t.Fatalf("files inside containers are looked at with every tick, not after %d", took)
			}
		}
	})
}
