package probe

// searchWidth is how many sizes are tried at once: each round leaves an eighth.
const searchWidth = 8

// search looks for the largest size that passes, between one that should (lo) and one that does not (hi).
type search struct {
	lo, hi  int
	round   int
	waiting int          // answers that are still to come
	asked   map[int]bool // sizes of this round, and whether each passed
	control int          // the size that must pass, else the round says nothing
}

// begin gives the sizes of the next round, lo itself among them: when that is lost, the round says nothing.
func (s *search) begin() (asks []ask) {
	s.round++
	s.asked, s.control = map[int]bool{s.lo: false}, s.lo
	for k := 1; k <= searchWidth; k++ {
		s.asked[s.lo+((s.hi-1-s.lo)*k+searchWidth-1)/searchWidth] = false
	}
	for size := range s.asked {
		asks = append(asks, ask{size, s.round})
	}
	s.waiting = len(asks)
	return asks
}

// result takes one probe's and tells whether it was the round's last.
func (s *search) result(size int, passed bool) bool {
	s.asked[size] = passed
	s.waiting--
	return s.waiting == 0
}

// next draws the conclusion of a round: whether the search is done, and whether lo is its result.
func (s *search) next() (done, whole bool) {
	if !s.asked[s.control] {
		return true, false
	}
	for size, passed := range s.asked {
		if passed {
			s.lo = max(s.lo, size)
		}
	}
	for size, passed := range s.asked {
		if !passed && size > s.lo {
			s.hi = min(s.hi, size)
		}
	}
	return s.hi-s.lo <= 1, true
}
