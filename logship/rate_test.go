package logship

import (
	"math"
	"testing"
	"time"
)

func TestARateComesNearASteadyFlowAndFadesAfterIt(t *testing.T) {
	t.Parallel()
	var r rate
	now := time.Now()
	n := uint64(0)
	for range 60 {
		r.see(n, now)
		n, now = n+500, now.Add(time.Second)
	}
	if got := r.get(); math.Abs(got-500) > 5 {
		t.Errorf("%.1f a second, want 500", got)
	}
	for range 6 {
		r.see(n, now)
		now = now.Add(10 * time.Second)
	}
	if got := r.get(); got > 5 {
		t.Errorf("%.1f a second a minute later", got)
	}
}
