package tail

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Glob gives the paths below the root that match pattern (path.Match per component; symbolic links stay inside), and
// the true paths of the directories in which a match may appear later. Missing directories are no error: the deepest
// that exists is among those to watch. Files that are an older generation of another match are left out.
func (r Root) Glob(pattern string) (matches, dirs []string, err error) {
	parts := strings.Split(strings.Trim(path.Clean("/"+pattern), "/"), "/")
	at := []string{"/"}
	for i, part := range parts {
		if !strings.ContainsAny(part, `*?[\`) && i < len(parts)-1 {
			for j := range at {
				at[j] = path.Join(at[j], part)
			}
			continue
		}
		var next []string
		for _, dir := range at {
			names, real, e := r.ReadDir(dir)
			for ; errors.Is(e, fs.ErrNotExist) && dir != "/"; _, real, e = r.ReadDir(dir) {
				dir = path.Dir(dir)
			}
			if e != nil {
				err = errors.Join(err, e)
				continue
			}
			dirs = append(dirs, real)
			for _, n := range names {
				if ok, _ := path.Match(part, n); ok {
					next = append(next, path.Join(dir, n))
				}
			}
		}
		at = next
	}
	slices.Sort(at)
	live := func(p string) bool { _, ok := slices.BinarySearch(at, p); return ok }
	matches = slices.DeleteFunc(slices.Clone(at), func(p string) bool { return Rotated(p, live) || compressed(p) })
	return matches, dirs, err
}

// rotatedSuffix is how rotations are named: .1, .2.1, -20261121, .20261121-092000, .old.
var rotatedSuffix = regexp.MustCompile(`^([.-][0-9][0-9T:._-]*|\.old)$`)

// Rotated tells whether p is named like an older generation of a path that live knows.
func Rotated(p string, live func(string) bool) bool {
	for i := len(p) - 1; i > 0 && p[i] != '/'; i-- {
		if rotatedSuffix.MatchString(p[i:]) && live(p[:i]) {
			return true
		}
	}
	return false
}

func compressed(p string) bool {
	switch path.Ext(p) {
	case ".gz", ".bz2", ".xz", ".zst":
		return true
	}
	return false
}

// siblings lists the files beside p that may be its older generations, by name: the highest number, the earliest date first.
func (r Root) siblings(p string) ([]string, error) {
	names, _, err := r.ReadDir(path.Dir(p))
	if err != nil {
		return nil, err
	}
	base := path.Base(p)
	var out []string
	for _, n := range names {
		if rest, ok := strings.CutPrefix(n, base); ok && rotatedSuffix.MatchString(rest) {
			out = append(out, path.Join(path.Dir(p), n))
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if x, y := rotation(a), rotation(b); x != y {
			return cmp.Compare(y, x)
		}
		return strings.Compare(a, b)
	})
	return out, nil
}

// rotation gives the number that a name ends with, 0 for a date or none.
func rotation(p string) int {
	digits := p[strings.LastIndexByte(p, '.')+1:]
	n, err := strconv.Atoi(digits)
	if err != nil || len(digits) > 4 {
		return 0
	}
	return n
}
