package shape

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// maxFields bounds what one line may bring into a sink's index.
const maxFields = 128

// parser reads a line's fields; ok is false when the line is not of its form.
type parser func(line []byte, arena *decode.Arena) (fields []sink.Field, ok bool)

// parseJSON reads one object. The members of an object within are named outer.inner; arrays stay JSON.
func parseJSON(line []byte, arena *decode.Arena) ([]sink.Field, bool) {
	var out []sink.Field
	ok := members(&out, "", line, arena, 0)
	if !ok {
		return nil, false
	}
	return once(out), true
}

// once keeps the last of fields of one name, as encoding/json does: receivers refuse the same key twice.
func once(fields []sink.Field) []sink.Field {
	out := fields[:0]
	for i, f := range fields {
		if !slices.ContainsFunc(fields[i+1:], func(later sink.Field) bool { return later.Name == f.Name }) {
			out = append(out, f)
		}
	}
	return out
}

func members(out *[]sink.Field, prefix string, object []byte, arena *decode.Arena, depth int) bool {
	whole := true
	ok := decode.Object(object, arena, func(key []byte, v decode.Value) bool {
		name := prefix + string(key)
		switch {
		case !v.String && depth < 4 && len(v.Text) > 0 && v.Text[0] == '{':
			whole = whole && members(out, name+".", v.Text, arena, depth+1)
		case len(*out) < maxFields:
			*out = append(*out, sink.Field{Name: name, Value: string(v.Text)})
		}
		return whole
	})
	return ok && whole
}

// parseLogfmt reads key=value and key="quoted value" divided by spaces. A line without any pair is not of the form; a
// word without = is a field without a value.
func parseLogfmt(line []byte, _ *decode.Arena) ([]sink.Field, bool) {
	var out []sink.Field
	pairs := 0
	for rest := bytes.TrimSpace(line); len(rest) > 0 && len(out) < maxFields; rest = bytes.TrimLeft(rest, " \t") {
		n := bytes.IndexAny(rest, "= \t")
		if n == 0 || n < 0 && pairs == 0 || bytes.IndexByte(rest[:max(n, 0)], '"') >= 0 {
			return nil, false
		}
		if n < 0 || rest[n] != '=' {
			if n < 0 {
				n = len(rest)
			}
			out = append(out, sink.Field{Name: string(rest[:n])})
			rest = rest[n:]
			continue
		}
		name := string(rest[:n])
		value, after, ok := logfmtValue(rest[n+1:])
		if !ok {
			return nil, false
		}
		out = append(out, sink.Field{Name: name, Value: value})
		pairs++
		rest = after
	}
	return once(out), pairs > 0
}

func logfmtValue(b []byte) (value string, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		n := bytes.IndexAny(b, " \t")
		if n < 0 {
			n = len(b)
		}
		return string(b[:n]), b[n:], true
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			text := string(b[1:i])
			if strings.IndexByte(text, '\\') >= 0 {
				if plain, err := strconv.Unquote(string(b[:i+1])); err == nil {
					text = plain
				}
			}
			return text, b[i+1:], true
		}
	}
	return "", nil, false
}

// parseGroups reads the named groups of a pattern.
func parseGroups(pattern *regexp.Regexp) parser {
	names := pattern.SubexpNames()
	return func(line []byte, _ *decode.Arena) ([]sink.Field, bool) {
		at := pattern.FindSubmatchIndex(line)
		if at == nil {
			return nil, false
		}
		var out []sink.Field
		for i, name := range names {
			if name != "" && at[2*i] >= 0 {
				out = append(out, sink.Field{Name: name, Value: string(line[at[2*i]:at[2*i+1]])})
			}
		}
		return out, true
	}
}

// stamp reads a record's own time from a field.
type stamp struct {
	field  string
	format string // of the configuration; empty: RFC 3339, or a number whose size tells its unit
}

// numbers are the formats that count from 1970.
var numbers = map[string]int64{"unix": 1e9, "unix_ms": 1e6, "unix_us": 1e3, "unix_ns": 1}

func (s *stamp) read(v string) (int64, bool) {
	unit := numbers[s.format]
	switch {
	case v == "":
		return 0, false
	case unit == 0 && s.format != "" && s.format != "rfc3339":
		t, err := time.Parse(s.format, v)
		return within(t, err)
	case unit == 0 && (s.format == "rfc3339" || strings.IndexByte(v, '-') > 0):
		t, err := time.Parse(time.RFC3339Nano, v)
		return within(t, err)
	}
	whole, fraction, _ := strings.Cut(v, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	if unit == 0 {
		switch { // seconds until 5138, milliseconds until the same ...
		case n < 1e11:
			unit = 1e9
		case n < 1e14:
			unit = 1e6
		case n < 1e17:
			unit = 1e3
		default:
			unit = 1
		}
	}
	if n > (1<<63-1)/unit-1 {
		return 0, false
	}
	ns := n * unit
	for scale := unit / 10; fraction != "" && scale > 0; fraction, scale = fraction[1:], scale/10 {
		if fraction[0]-'0' > 9 {
			return 0, false
		}
		ns += int64(fraction[0]-'0') * scale
	}
	return ns, true
}

// within refuses times that nanoseconds since 1970 cannot hold.
func within(t time.Time, err error) (int64, bool) {
	if err != nil || t.Year() < 1970 || t.Year() > 2261 {
		return 0, false
	}
	return t.UnixNano(), true
}
