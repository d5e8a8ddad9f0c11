package metrics

import (
	"slices"
	"sync"
)

// body is one HTTP body in memory.
type body struct {
	b    []byte
	idle int // how many others were taken since it was given back
}

// spare keeps the memory of bodies for the next pages. A sync.Pool keeps one for each processor, and those of the time
// before the last collection too: of a page of a megabyte that is four.
type spare struct {
	mu   sync.Mutex
	free []*body
}

const (
	mostSpare = 4  // one for each form in which scrapers want the page
	mostIdle  = 16 // a form that nobody has wanted for so many bodies will not be wanted soon
)

// take gives an empty body with room for somewhat more than size bytes.
func (s *spare) take(size int) *body {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := -1
	for i, b := range s.free {
		b.idle++
		if cap(b.b) >= size && (best < 0 || cap(b.b) < cap(s.free[best].b)) {
			best = i
		}
	}
	var out *body
	if best >= 0 {
		out = s.free[best]
		s.free = slices.Delete(s.free, best, best+1)
	} else {
		out = &body{b: make([]byte, 0, size+size/8)}
	}
	s.free = slices.DeleteFunc(s.free, func(b *body) bool { return b.idle > mostIdle })
	out.b, out.idle = out.b[:0], 0
	return out
}

// put gives b back.
func (s *spare) put(b *body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < mostSpare {
		s.free = append(s.free, b)
	}
}
