package host

import "sync"

// Descriptors is the agent's budget of open files. A hard limit of 20,000 is real, and 1,000 cgroups with 13 kept
// files plus 5,000 logs and their pins exceed it; so each holder has a share, and one that is refused falls back to
// open, read, close. It is safe for concurrent use.
type Descriptors struct {
	mu    sync.Mutex
	limit int
	used  map[string]int
	share map[string]int
}

// NewDescriptors makes a budget of limit descriptors, some of which the runtime itself needs: pass the soft limit
// (RLIMIT_NOFILE) less a reserve.
func NewDescriptors(limit int) *Descriptors {
	return &Descriptors{limit: limit, used: map[string]int{}, share: map[string]int{}}
}

// Holder is one part's claim on the budget. Its methods are safe for concurrent use and do not block.
type Holder struct {
	d    *Descriptors
	name string
}

// Holder gives the part called name at most percent of the budget. The same name twice is the same claim.
func (d *Descriptors) Holder(name string, percent int) *Holder {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.share[name] = d.limit * percent / 100
	return &Holder{d: d, name: name}
}

// Acquire takes n descriptors, or none and answers false when the share would be exceeded.
func (h *Holder) Acquire(n int) bool {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.used[h.name]+n > h.d.share[h.name] {
		return false
	}
	h.d.used[h.name] += n
	return true
}

// Release gives n back.
func (h *Holder) Release(n int) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.used[h.name] = max(0, h.d.used[h.name]-n)
}

// Used tells how many the holder has.
func (h *Holder) Used() int {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.d.used[h.name]
}
