package metrics

import "testing"

func TestMemoryOfPagesIsUsedAgainAndGivenBackWhenNobodyWantsIt(t *testing.T) {
	t.Parallel()
	var s spare
	large, small := s.take(8000), s.take(1000)
	s.put(large)
	s.put(small)
	if got := s.take(900); got != small {
		t.Errorf("%d bytes for a page of 900", cap(got.b))
	}
	if got := s.take(8100); got != large || len(got.b) != 0 {
		t.Errorf("%d bytes for a page of 8100", cap(got.b))
	}
	s.put(large)
	for range mostIdle + 1 {
		s.put(small)
		if got := s.take(1000); got != small {
			t.Fatalf("%d bytes for a page of 1000", cap(got.b))
		}
	}
	if len(s.free) != 0 {
		t.Error("a large page that nobody wants is kept")
	}
	for range 2 * mostSpare {
		s.put(&body{})
	}
	if len(s.free) != mostSpare {
		t.Errorf("%d are kept", len(s.free))
	}
}
