package host

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestHolderNeverExceedsItsShare(t *testing.T) {
	t.Parallel()
	d := NewDescriptors(1000)
	metrics, logs := d.Holder("metrics", 60), d.Holder("logship", 30)
	if !metrics.Acquire(600) || metrics.Acquire(1) {
		t.Errorf("metrics got %d of 600", metrics.Used())
	}
	if !logs.Acquire(299) || logs.Acquire(2) || !logs.Acquire(1) {
		t.Errorf("logship got %d of 300: all or none of each request", logs.Used())
	}
	metrics.Release(13)
	if metrics.Used() != 587 || !metrics.Acquire(13) || metrics.Acquire(1) {
		t.Errorf("what was given back could not be had again: %d", metrics.Used())
	}
	if logs.Used() != 300 {
		t.Errorf("logship now has %d", logs.Used())
	}
}

func TestSameNameIsTheSameClaim(t *testing.T) {
	t.Parallel()
	d := NewDescriptors(100)
	before := d.Holder("metrics", 50)
	if !before.Acquire(40) {
		t.Fatal("refused")
	}
	again := d.Holder("metrics", 50) // the part was restarted
	if again.Used() != 40 || again.Acquire(11) || !again.Acquire(10) || before.Used() != 50 {
		t.Errorf("two claims: %d and %d", before.Used(), again.Used())
	}
	again.Release(1000) // giving back too much frees no room that is not there
	if again.Used() != 0 || again.Acquire(51) {
		t.Errorf("after too much was given back: %d", again.Used())
	}
}

func TestBudgetHoldsUnderConcurrency(t *testing.T) {
	t.Parallel()
	h := NewDescriptors(100).Holder("metrics", 100)
	var most, held atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				if h.Acquire(13) {
					n := held.Add(13)
					if n > most.Load() {
						most.Store(n)
					}
					held.Add(-13)
					h.Release(13)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 100 || most.Load() == 0 || h.Used() != 0 {
		t.Errorf("held at most %d of 100, %d left", most.Load(), h.Used())
	}
}
