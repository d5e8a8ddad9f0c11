package tail

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"slices"
	"strings"
)

// packs opens the .gz files beside p, the one that was written to first at the beginning: gzip keeps that time.
func (r Root) packs(p string) (out []*Past) {
	names, _, err := r.ReadDir(path.Dir(p))
	if err != nil {
		return nil
	}
	for _, n := range names {
		plain, packed := strings.CutSuffix(n, ".gz")
		rest, ok := strings.CutPrefix(plain, path.Base(p))
		if !packed || !ok || !rotatedSuffix.MatchString(rest) || slices.Contains(names, plain) {
			continue // also one that is just being written
		}
		if past, err := r.past(path.Join(path.Dir(p), n), true); err == nil {
			out = append(out, past)
		}
	}
	slices.SortStableFunc(out, func(a, b *Past) int { return a.Changed.Compare(b.Changed) })
	return out
}

// Packed opens the .gz files beside path that may hold a file which was born then: it was last written to after that, and
// the next ones later than it. The caller closes each.
func Packed(root Root, path string, born int64) []*Past {
	all := root.packs(path)
	var out []*Past
	for _, p := range all {
		if p.Changed.UnixNano() < born || len(out) == 2 { // the one after it, as clocks are coarse
			p.Close()
			continue
		}
		out = append(out, p)
	}
	return out
}

// Unpack says that a generation which was packed since its places were saved is read from its .gz, unpacked into a file
// without a name in dir, at most limit bytes of all. It is called before the first Look, which then takes as long as that.
func (s *Series) Unpack(dir string, limit int64) { s.unpackDir, s.unpackLimit = dir, limit }

// unpacked finds the generations that wanted places lie in, and that are nowhere else, in .gz files; and those that were
// made and packed after them, which nobody has seen.
func (s *Series) unpacked(have func(Identity) *Generation) (out []*Generation) {
	var missing []Place
	for _, p := range s.wanted {
		if p.Offset > 0 && have(p.Identity) == nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 || s.unpackDir == "" {
		return nil
	}
	var before *Past // the newest that was taken
	for _, f := range s.root.packs(s.path) {
		g, err := s.unpack(f, missing, before)
		f.Close()
		if err != nil || g == nil {
			continue
		}
		before, out = f, append(out, g)
		missing = slices.DeleteFunc(missing, func(p Place) bool { return p.Same(g.ID) })
	}
	return out
}

// unpack gives the generation that f has, or nil when it has none that is wanted.
func (s *Series) unpack(f *Past, missing []Place, before *Past) (*Generation, error) {
	id, err := s.whose(f, missing)
	if err != nil {
		return nil, err
	}
	if id == (Identity{}) {
		if before == nil || !f.Changed.After(before.Changed) {
			return nil, nil // older than all that is wanted
		}
		// Nobody saw it. It was born when the one before it was last written to.
		id = Identity{f.ID.Dev, f.ID.Ino, before.Changed.UnixNano()}
	}
	out, size, broken, err := s.extract(f)
	if err != nil {
		return nil, err
	}
	g := &Generation{ID: id, file: out, owns: true, unpin: func() {}, packed: f.ID}
	g.copy.Store(&copied{file: out, size: size, id: id, own: true})
	g.sawSize(size)
	if broken {
		g.torn = true
		g.sawSize(size + 1)
	}
	for _, p := range missing {
		if p.Same(id) {
			g.sawSize(p.Seen)
			g.torn = g.torn || p.Seen > size
		}
	}
	return g, nil
}

// whose finds out which of the missing files f was: the one of which a place is in it, and none contradicts.
func (s *Series) whose(f *Past, missing []Place) (id Identity, err error) {
	missing = slices.DeleteFunc(slices.Clone(missing), func(p Place) bool { return p.Birth > f.Changed.UnixNano() })
	if len(missing) == 0 {
		return id, nil // it was finished before any of them was begun
	}
	proofs, size, err := f.prove(missing)
	if err != nil {
		return id, err
	}
	wrong := map[Identity]bool{}
	for i, p := range missing {
		wrong[p.Identity] = wrong[p.Identity] || p.Offset <= size && proofs[i] != p.Proof
	}
	for _, p := range missing {
		if p.Offset <= size && !wrong[p.Identity] {
			return p.Identity, nil
		}
	}
	return id, nil
}

// prove gives the proof for each place, as far as f has so much, and how much it has. It reads no further than the head
// when that is nobody's: then there are no proofs at all.
func (p *Past) prove(places []Place) (proofs []Proof, size int64, err error) {
	in, err := p.Reader()
	if err != nil {
		return nil, 0, err
	}
	order := make([]int, len(places))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(places[a].Offset, places[b].Offset) })
	proofs = make([]Proof, len(places))
	var head, tail []byte
	looked := false
	buf := make([]byte, 64<<10)
	for {
		want := buf
		if len(order) > 0 {
			want = buf[:min(int64(len(buf)), places[order[0]].Offset-size)]
		}
		n, err := in.Read(want)
		size += int64(n)
		head = append(head, want[:min(n, headBytes-len(head))]...)
		tail = append(tail, want[max(0, n-tailBytes):n]...)
		tail = append(tail[:0], tail[max(0, len(tail)-tailBytes):]...)
		for len(order) > 0 && places[order[0]].Offset == size {
			proofs[order[0]] = ProofOf(head, tail)
			order = order[1:]
		}
		if err != nil { // also when it was cut off here, or damaged
			return proofs, size, nil //nolint:nilerr // what came before is there
		}
		if begun := len(head) == headBytes; begun && !looked {
			looked = true
			if !slices.ContainsFunc(places, func(p Place) bool { return p.Offset < headBytes || p.Head == hash(head) }) {
				return proofs, math.MaxInt64, nil
			}
		}
	}
}

// extract unpacks f into a file without a name. broken tells that it is not all.
func (s *Series) extract(f *Past) (file *os.File, size int64, broken bool, err error) {
	tmp, err := os.CreateTemp(s.unpackDir, ".unpacked-")
	if err != nil {
		return nil, 0, false, fmt.Errorf("unpack %s: %w", f.Path, err)
	}
	defer tmp.Close()
	file, err = os.Open(tmp.Name()) // one that nobody can write to: see Busy
	if err = errors.Join(err, os.Remove(tmp.Name())); err != nil {
		return nil, 0, false, fmt.Errorf("unpack %s: %w", f.Path, err)
	}
	in, err := f.Reader()
	if err != nil {
		return nil, 0, false, errors.Join(err, file.Close())
	}
	// What is damaged, or has no room, is counted as lost when its place is reached.
	size, err = io.Copy(tmp, io.LimitReader(in, s.unpackLimit))
	s.unpackLimit -= size
	return file, size, err != nil || s.unpackLimit <= 0, nil
}
