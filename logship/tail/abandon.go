package tail

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Only gives the generations of which nothing but this Series keeps the bytes, and what they take on the disk.
func (s *Series) Only() map[*Generation]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[*Generation]int64{}
	for _, g := range s.gens {
		if n := g.only(); n > 0 {
			out[g] = n
		}
	}
	return out
}

func (g *Generation) only() int64 {
	var st unix.Stat_t
	pinned := g.unpin != nil
	if c := g.copy.Load(); c != nil {
		pinned = c.unpin != nil
	}
	if unix.Fstat(int(g.content().Fd()), &st) != nil || pinned && st.Nlink > 1 || !pinned && st.Nlink > 0 {
		return 0
	}
	return st.Blocks * 512
}

// Abandon frees the disk space of a generation that Only gave, whatever has not been read of it. Readers find it cut.
// It does nothing when somebody else has the file by now.
func (s *Series) Abandon(g *Generation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.only() == 0 {
		return nil
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", g.content().Fd()), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("abandon %s: %w", s.path, err)
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("abandon %s: %w", s.path, err)
	}
	if g.next.Load() == nil {
		s.begin(g)
	}
	g.cut.Store(true)
	return nil
}
