package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problemf makes one problem of a Validate method: key is its path, as in networks[0].vni.
func Problemf(key, format string, args ...any) error {
	return Problem{Key: key, Message: fmt.Sprintf(format, args...)}
}

// Under puts prefix before the key of each problem in err, so that a section validates itself without knowing where
// it stands: Under("overlay", c.Overlay.Validate()). It gives nil for nil.
func Under(prefix string, err error) error {
	ps := problemsOf(err)
	errs := make([]error, len(ps))
	for i, p := range ps {
		switch {
		case p.Key == "":
			p.Key = prefix
		case strings.HasPrefix(p.Key, "["):
			p.Key = prefix + p.Key
		default:
			p.Key = join(prefix, p.Key)
		}
		errs[i] = p
	}
	return errors.Join(errs...)
}

// Locate adds file and line to each problem that a Validate method found: an errors.Join whose members begin with a
// key path and ": ", or are made by Problemf. A key that is not in the file gets the line of the nearest section
// that is. The values of references are taken out of the messages. A problem of a value that Decode could not read is
// left out: it was told already. The result is Problems, or nil for nil.
func (f *File) Locate(err error) error {
	ps := slices.DeleteFunc(problemsOf(err), func(p Problem) bool { return p.Key != "" && f != nil && f.unread[p.Key] })
	if len(ps) == 0 {
		return nil
	}
	for i := range ps {
		ps[i].File, ps[i].Line = f.name, f.line(ps[i].Key)
		ps[i].Message = f.redact(ps[i].Message)
	}
	slices.SortStableFunc(ps, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return ps
}

// problemsOf takes a tree of joined errors apart.
func problemsOf(err error) Problems {
	if err == nil {
		return nil
	}
	if p, ok := err.(Problem); ok { //nolint:errorlint // the tree is taken apart node by node
		return Problems{p}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok && !wraps(many.Unwrap(), err) {
		var out Problems
		for _, e := range many.Unwrap() {
			out = append(out, problemsOf(e)...)
		}
		return out
	}
	key, message, ok := strings.Cut(err.Error(), ": ")
	if !ok || !keyPath.MatchString(key) {
		key, message = "", err.Error()
	}
	return Problems{{Key: key, Message: message}}
}

// wraps tells whether whole is fmt.Errorf with several %w, whose own words must not be lost, and not a plain join.
func wraps(errs []error, whole error) bool {
	var lines []string
	for _, e := range errs {
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n") != whole.Error()
}

var keyPath = regexp.MustCompile(`^[\w-]*(\[\d+\]|\.?[\w-]+)*$`)

// line gives the line of the longest part of the key path that is in the file, 0 when the file says nothing.
func (f *File) line(key string) int {
	if f == nil || f.root == nil {
		return 0
	}
	n, line := f.root, 1
	for key != "" {
		var found bool
		if n, key, found = step(n, key, &line); !found {
			break
		}
	}
	return line
}

// step goes one key or index down from n and answers the rest of the path.
func step(n *yaml.Node, key string, line *int) (*yaml.Node, string, bool) {
	key = strings.TrimPrefix(key, ".")
	if n.Kind == yaml.SequenceNode {
		number, rest, ok := strings.Cut(strings.TrimPrefix(key, "["), "]")
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < 0 || i >= len(n.Content) {
			return n, key, false
		}
		*line = n.Content[i].Line
		return n.Content[i], rest, true
	}
	best := -1 // a map's key may itself hold a dot: the longest that fits
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		rest, ok := strings.CutPrefix(key, n.Content[i].Value)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') && (best < 0 || len(n.Content[i].Value) > len(n.Content[best].Value)) {
			best = i
		}
	}
	if best < 0 {
		return n, key, false
	}
	*line = n.Content[best].Line
	return n.Content[best+1], key[len(n.Content[best].Value):], true
}

// redact puts references back in the place of their values. Values of fewer than four characters are left: they
// would tear unrelated words apart, and hide nothing from anybody.
func (f *File) redact(message string) string {
	if f == nil {
		return message
	}
	longest := slices.SortedFunc(slices.Values(f.secrets), func(a, b secret) int { return cmp.Compare(len(b.value), len(a.value)) })
	for _, s := range longest {
		if quoted := strconv.Quote(s.value); len(s.value) >= 4 {
			message = strings.ReplaceAll(message, s.value, s.ref)
			message = strings.ReplaceAll(message, quoted[1:len(quoted)-1], s.ref)
		}
	}
	return message
}
