package metrics

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fairlead-dev/fairlead/metrics/expo"
)

var (
	textPlain = flavourOf(expo.Text, expo.Identity)
	textGzip  = flavourOf(expo.Text, expo.Gzip)
)

func TestRequestsThatComeDuringAScrapeShareTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		var wanted []flavour
		gate := make(chan struct{})
		s := newShare(func(want flavour) *answer {
			runs.Add(1)
			wanted = append(wanted, want)
			<-gate
			return &answer{}
		})
		var all sync.WaitGroup
		ask := func(f flavour) {
			all.Go(func() {
				_, release, err := s.get(t.Context(), f)
				if err != nil {
					t.Error(err)
					return
				}
				release()
			})
		}
		ask(textPlain)
		synctest.Wait()
		for range 50 {
			ask(textGzip)
			ask(usages)
		}
		synctest.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d scrapes at once", runs.Load())
		}
		gate <- struct{}{}
		synctest.Wait()
		if runs.Load() != 2 {
			t.Errorf("%d scrapes for the 100 who came late", runs.Load()-1)
		}
		gate <- struct{}{}
		all.Wait()
		if len(wanted) != 2 || wanted[0] != textPlain || wanted[1] != textGzip|usages {
			t.Errorf("wanted %v", wanted)
		}
	})
}

func TestAClientThatLeavesDoesNotDisturbTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := newShare(func(flavour) *answer { <-gate; return &answer{} })
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { // runs the first scrape
			_, release, _ := s.get(t.Context(), textPlain)
			release()
		})
		synctest.Wait()
		var left, stayed error
		all.Go(func() { // leads the second
			var release func()
			_, release, stayed = s.get(t.Context(), textPlain)
			release()
		})
		synctest.Wait()
		all.Go(func() { _, _, left = s.get(ctx, textPlain) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		if left == nil {
			t.Error("the one who left still waits")
		}
		gate <- struct{}{}
		gate <- struct{}{}
		all.Wait()
		if stayed != nil {
			t.Error(stayed)
		}
	})
}
