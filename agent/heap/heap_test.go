package heap

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestWhoeverMakesMuchGarbageIsGivenRoom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		apart     time.Duration
		now, want int
	}{
		{time.Minute, usual, little}, {time.Second, usual, little}, {500 * time.Millisecond, usual, usual},
		{500 * time.Millisecond, little, little}, {100 * time.Millisecond, little, usual}, {0, usual, usual},
	} {
		if got := percent(c.apart, c.now); got != c.want {
			t.Errorf("%s apart at %d: %d, want %d", c.apart, c.now, got, c.want)
		}
	}
}

func TestEachCollectionTells(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set")
	}
	KeepSmall()
	for _, want := range []int{little, usual, little, usual} { // the second time it has been armed again
		for deadline := time.Now().Add(20 * time.Second); gogc() != want; {
			if time.Now().After(deadline) {
				t.Fatalf("%d, want %d", gogc(), want)
			}
			if want == usual || time.Since(collected()) > rare {
				runtime.GC()
			} else {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
}

func gogc() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}

// collected is when the last collection ended.
func collected() time.Time {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Unix(0, int64(m.LastGC)) //nolint:gosec // nanoseconds of this century
}
