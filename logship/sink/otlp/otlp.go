// Package otlp is the sink that sends OTLP over HTTP in protocol buffers, to a collector's /v1/logs.
//
// The origin is the resource, by the names of the semantic conventions where they have one; a container's labels are
// container.label.NAME. A partial success does not say which records were rejected; then all of that request count.
package otlp

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// New makes a sink that posts to o.URL; it touches nothing.
func New(o post.Options) *post.Sink { return post.New(o, &format{}) }

// format renders ExportLogsServiceRequest (opentelemetry-proto, logs/v1).
//
//	Request        1: ResourceLogs...
//	ResourceLogs   1: Resource (1: KeyValue...)  2: ScopeLogs (2: LogRecord...)
//	LogRecord      1: fixed64 time  2: severity  5: AnyValue (1: string, 7: bytes)  6: KeyValue...
type format struct {
	resources sink.Cache[string]
	sizes     []int
}

func (f *format) Header() http.Header {
	return http.Header{"Content-Type": {"application/x-protobuf"}}
}

// Body writes one ResourceLogs for each run of records of one origin.
func (f *format) Body(b []byte, records []sink.Record) []byte {
	for len(records) > 0 {
		n := 1
		for n < len(records) && records[n].Origin == records[0].Origin {
			n++
		}
		b = f.resource(b, records[:n])
		records = records[n:]
	}
	return b
}

func (f *format) resource(b []byte, records []sink.Record) []byte {
	about := f.resources.Get(records[0].Origin, resource)
	f.sizes = f.sizes[:0]
	logs := 0
	for i := range records {
		n := recordSize(&records[i])
		f.sizes = append(f.sizes, n)
		logs += 1 + post.VarintLen(uint64(n)) + n
	}
	b = append(b, 1<<3|2)
	b = post.AppendVarint(b, uint64(len(about)+1+post.VarintLen(uint64(logs))+logs))
	b = append(b, about...)
	b = append(b, 2<<3|2)
	b = post.AppendVarint(b, uint64(logs))
	for i := range records {
		b = append(b, 2<<3|2)
		b = post.AppendVarint(b, uint64(f.sizes[i]))
		b = appendRecord(b, &records[i])
	}
	return b
}

var stdAttribute = [3]string{"", attribute(6, "log.iostream", "stdout"), attribute(6, "log.iostream", "stderr")}

func bodySize(line []byte) int { return 1 + post.VarintLen(uint64(len(line))) + len(line) }

func recordSize(r *sink.Record) int {
	n := bodySize(r.Line)
	return 9 + 1 + post.VarintLen(uint64(n)) + n + len(stdAttribute[r.Std]) + len(fields(r))
}

func appendRecord(b []byte, r *sink.Record) []byte {
	b = append(b, 1<<3|1)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.At))
	b = append(b, 5<<3|2)
	b = post.AppendVarint(b, uint64(bodySize(r.Line)))
	kind := byte(1<<3 | 2)
	if !utf8.Valid(r.Line) {
		kind = 7<<3 | 2 // bytes stay what they are
	}
	b = append(b, kind)
	b = post.AppendVarint(b, uint64(len(r.Line)))
	b = append(b, r.Line...)
	b = append(b, stdAttribute[r.Std]...)
	return append(b, fields(r)...)
}

// fields renders what was parsed from the line as attributes.
func fields(r *sink.Record) (out string) {
	for _, f := range r.Fields {
		out += attribute(6, strings.ToValidUTF8(f.Name, "\uFFFD"), f.Value)
	}
	return out
}

// attribute renders a KeyValue as a field.
func attribute(number int, key, value string) string {
	any := post.AppendField(nil, 1, strings.ToValidUTF8(value, "\uFFFD"))
	return string(post.AppendField(nil, number, string(post.AppendField(post.AppendField(nil, 1, key), 2, string(any)))))
}

var names = map[string]string{"host": "host.name", "runtime": "container.runtime", "id": "container.id", "name": "container.name",
	"image": "container.image.name", "addr": "container.ip", "namespace": "k8s.namespace.name", "pod": "k8s.pod.name", "path": "log.file.path"}

func resource(o *sink.Origin) string {
	var b strings.Builder
	for _, f := range o.Fields() {
		b.WriteString(attribute(1, names[f.Name], f.Value))
	}
	for _, t := range o.Tags() {
		b.WriteString(attribute(1, "container.label."+strings.ToValidUTF8(t.Name, "\uFFFD"), t.Value))
	}
	return string(post.AppendField(nil, 1, b.String()))
}

// Verdict reads ExportLogsServiceResponse: 1: partial_success (1: rejected_log_records 2: error_message).
func (f *format) Verdict(answer []byte, records []sink.Record) (int, []sink.Rejection, error) {
	rejected, why := partial(answer)
	if rejected == 0 {
		return len(records), nil, nil
	}
	reason := fmt.Sprintf("%d of %d were rejected, the receiver does not say which: %s", rejected, len(records), why)
	out := make([]sink.Rejection, len(records))
	for i := range out {
		out[i] = sink.Rejection{Index: i, Reason: reason}
	}
	return len(records), out, nil
}

func partial(answer []byte) (rejected uint64, why string) {
	success, ok := field(answer, 1)
	if !ok {
		return 0, ""
	}
	for b := success; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return rejected, why
		}
		v, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return rejected, why
		}
		b = b[n+m:]
		switch tag {
		case 1 << 3:
			rejected = v
		case 2<<3 | 2:
			if v > uint64(len(b)) {
				return rejected, why
			}
			why, b = string(b[:v]), b[v:]
		default:
			return rejected, why
		}
	}
	return rejected, why
}

// field gives the first field when it is length-delimited and has that number.
func field(b []byte, number int) ([]byte, bool) {
	if len(b) == 0 || b[0] != byte(number<<3|2) {
		return nil, false
	}
	v, n := binary.Uvarint(b[1:])
	if n <= 0 || v > uint64(len(b)-1-n) {
		return nil, false
	}
	return b[1+n:][:v], true
}
