// Package loki is the sink that pushes to Loki: snappy-compressed protocol buffers to /loki/api/v1/push.
//
// Labels of a stream are what is known of the origin, and "stream"; a container's own labels go with each line as
// structured metadata, because Loki bounds the number of labels. Loki keeps a line once that is sent twice with its time.
package loki

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/s2"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// New makes a sink that posts to o.URL; it touches nothing.
func New(o post.Options) *post.Sink { return post.New(o, &format{index: map[key]int{}}) }

// format renders push requests (Loki's push.proto).
//
//	PushRequest   1: Stream...
//	Stream        1: labels  2: Entry...
//	Entry         1: Timestamp (1: seconds 2: nanos)  2: line  3: LabelPair... (1: name 2: value)
type format struct {
	streams [3]sink.Cache[string] // by decode.Std: the labels
	tags    sink.Cache[string]    // the metadata fields of each entry
	groups  []group
	index   map[key]int
	raw     []byte
}

type key struct {
	origin *sink.Origin
	std    uint8
}

type group struct {
	labels, tags string
	records      []int32
	size         int // of its entries with their heads
}

func (f *format) Header() http.Header {
	return http.Header{"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"}}
}

func (f *format) Verdict(_ []byte, records []sink.Record) (int, []sink.Rejection, error) {
	return len(records), nil, nil
}

func (f *format) Body(buf []byte, records []sink.Record) []byte {
	f.gather(records)
	f.raw = f.raw[:0]
	for i := range f.groups {
		g := &f.groups[i]
		labels := 1 + post.VarintLen(uint64(len(g.labels))) + len(g.labels)
		f.raw = append(f.raw, 1<<3|2)
		f.raw = post.AppendVarint(f.raw, uint64(labels+g.size))
		f.raw = post.AppendField(f.raw, 1, g.labels)
		for _, n := range g.records {
			f.raw = appendEntry(f.raw, &records[n], g.tags)
		}
	}
	if need := s2.MaxEncodedLen(len(f.raw)); cap(buf) < need {
		buf = make([]byte, need)
	}
	return s2.EncodeSnappy(buf[:cap(buf)], f.raw)
}

// gather divides the records by stream, in their order.
func (f *format) gather(records []sink.Record) {
	clear(f.index)
	f.groups = f.groups[:0]
	last, at := key{}, -1
	for i := range records {
		r := &records[i]
		if !utf8.Valid(r.Line) { // a string in protocol buffers is UTF-8
			r.Line = []byte(strings.ToValidUTF8(string(r.Line), "\uFFFD"))
		}
		if k := (key{r.Origin, uint8(r.Std)}); at < 0 || k != last {
			last = k
			var ok bool
			if at, ok = f.index[k]; !ok {
				at = f.open(r)
				f.index[k] = at
			}
		}
		g := &f.groups[at]
		g.records = append(g.records, int32(i))
		n := entrySize(r, g.tags)
		g.size += 1 + post.VarintLen(uint64(n)) + n
	}
}

// open begins a group in the memory of an earlier batch.
func (f *format) open(r *sink.Record) int {
	g := group{
		labels: f.streams[r.Std].Get(r.Origin, func(o *sink.Origin) string { return labels(o, r.Std.String()) }),
		tags:   f.tags.Get(r.Origin, metadata),
	}
	n := len(f.groups)
	if cap(f.groups) > n {
		g.records = f.groups[:n+1][n].records[:0]
	}
	f.groups = append(f.groups, g)
	return n
}

func seconds(r *sink.Record) (sec, nanos uint64) {
	return uint64(r.At / 1e9), uint64(r.At % 1e9)
}

func stampSize(sec, nanos uint64) int { return 2 + post.VarintLen(sec) + post.VarintLen(nanos) }

func entrySize(r *sink.Record, tags string) int {
	return 2 + stampSize(seconds(r)) + 1 + post.VarintLen(uint64(len(r.Line))) + len(r.Line) + len(tags) + len(fields(r))
}

func appendEntry(b []byte, r *sink.Record, tags string) []byte {
	sec, nanos := seconds(r)
	b = append(b, 2<<3|2)
	b = post.AppendVarint(b, uint64(entrySize(r, tags)))
	b = append(b, 1<<3|2, byte(stampSize(sec, nanos)), 1<<3)
	b = post.AppendVarint(b, sec)
	b = append(b, 2<<3)
	b = post.AppendVarint(b, nanos)
	b = append(b, 2<<3|2)
	b = post.AppendVarint(b, uint64(len(r.Line)))
	b = append(b, r.Line...)
	b = append(b, tags...)
	return append(b, fields(r)...)
}

// fields renders what was parsed from the line as structured metadata.
func fields(r *sink.Record) (out string) {
	for _, f := range r.Fields {
		out += pair(f)
	}
	return out
}

func pair(f sink.Field) string {
	p := post.AppendField(post.AppendField(nil, 1, name(f.Name)), 2, strings.ToValidUTF8(f.Value, "\uFFFD"))
	return string(post.AppendField(nil, 3, string(p)))
}

// labels renders {a="b", ...} as Loki reads it.
func labels(o *sink.Origin, std string) string {
	var b strings.Builder
	b.WriteString(`{job="fairlead"`)
	for _, f := range append(o.Fields(), sink.Field{Name: "stream", Value: std}) {
		if f.Value != "" {
			b.WriteString(", " + f.Name + "=" + strconv.Quote(strings.ToValidUTF8(f.Value, "\uFFFD")))
		}
	}
	b.WriteByte('}')
	return b.String()
}

func metadata(o *sink.Origin) string {
	var b []byte
	for _, t := range o.Tags() {
		b = append(b, pair(t)...)
	}
	return string(b)
}

// name makes a label's name: letters, digits and _.
func name(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			b[i] = '_'
		}
	}
	if len(b) == 0 || b[0] >= '0' && b[0] <= '9' {
		return "_" + string(b)
	}
	return string(b)
}
