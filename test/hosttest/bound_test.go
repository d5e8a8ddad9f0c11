package hosttest

import (
	"testing"
	"time"
)

func TestABoundIsTenfoldWhereTheProcessorIsEmulated(t *testing.T) {
	for emulated, want := range map[string]time.Duration{"": time.Second, "0": time.Second, "1": 10 * time.Second} {
		t.Setenv("FAIRLEAD_EMULATED", emulated)
		if got := Bound(time.Second); got != want {
			t.Errorf("FAIRLEAD_EMULATED=%q: got %s, want %s", emulated, got, want)
		}
	}
}
