package tail

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Past is one file in the life of a path, opened for whoever wants to read it again.
type Past struct {
	ID      Identity
	Seq     int64     // of the Generation; 0 when the Series has released it, or never had it
	Path    string    // below the root; the series' own when the name is not known
	Size    int64     // on the disk
	Changed time.Time // when it was last written to
	file    *os.File
	packed  bool
	from    Identity // the .gz that a generation was unpacked from
}

// Reader reads the content from its start, that of a .gz unpacked.
func (p *Past) Reader() (io.Reader, error) {
	in := io.NewSectionReader(p.file, 0, 1<<62)
	if !p.packed {
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", p.Path, err)
	}
	return z, nil
}

// Close closes the file. It may be called twice.
func (p *Past) Close() { _ = p.file.Close() }

// History opens every file that has something of the series, oldest first: what lies beside the path and was released,
// also compressed, and then the generations that are kept, by descriptors of their own. What was truncated without a
// copy is left out. The caller closes each.
func (s *Series) History() ([]*Past, error) {
	kept, err := s.reopen()
	if err != nil {
		return nil, err
	}
	names, _, err := s.root.ReadDir(path.Dir(s.path))
	if err != nil {
		return kept, nil //nolint:nilerr // the directory went with its container; what is kept is all there is
	}
	var beside []*Past
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, path.Base(s.path))
		plain, packed := strings.CutSuffix(rest, ".gz")
		if !ok || plain != "" && !rotatedSuffix.MatchString(plain) || packed && slices.Contains(names, strings.TrimSuffix(n, ".gz")) {
			continue // also a .gz that is just being written
		}
		p, err := s.root.past(path.Join(path.Dir(s.path), n), packed)
		if err != nil {
			continue // it was renamed or removed meanwhile, or is no file
		}
		if slices.ContainsFunc(kept, func(k *Past) bool { return k.ID.Same(p.ID) || k.from == p.ID }) || plain == "" {
			p.Close()
			continue
		}
		beside = append(beside, p)
	}
	slices.SortStableFunc(beside, func(a, b *Past) int { return a.Changed.Compare(b.Changed) })
	return append(beside, kept...), nil
}

// reopen gives what the series holds.
func (s *Series) reopen() (out []*Past, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gens {
		if g.Cut() {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", g.content().Fd()))
		if err != nil {
			return out, fmt.Errorf("open %s again: %w", s.path, err)
		}
		size, changed, err := g.Stat()
		if err != nil {
			_ = f.Close()
			return out, err
		}
		out = append(out, &Past{ID: g.Identity(), Seq: g.Seq, Path: s.path, Size: size, Changed: changed, file: f, from: g.packed})
	}
	return out, nil
}

func (r Root) past(p string, packed bool) (*Past, error) {
	f, err := r.Open(p)
	if err != nil {
		return nil, err
	}
	id, err := identify(int(f.Fd()))
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &Past{ID: id, Path: p, Size: fi.Size(), Changed: fi.ModTime(), file: f, packed: packed}, nil
}
