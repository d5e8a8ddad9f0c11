package syslog

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

// sdID names our structured data. 32473 is the number that RFC 5612 sets aside for examples and documentation.
const sdID = "fairlead@32473"

// Facility user; severity informational for stdout and files, error for stderr.
const (
	facility = 1
	info     = 6
	failed   = 3
)

// format renders records. What does not change from line to line of an origin is rendered once and kept.
type format struct {
	heads map[*sink.Origin]head
}

// Format renders messages for another protocol that carries them. The zero value is ready.
type Format struct{ format format }

// Append adds the record as one RFC 5424 message, without a frame.
func (f *Format) Append(b []byte, r *sink.Record) []byte { return f.format.render(b, r, false) }

type head struct {
	before [3]string // by decode.Std: "<PRI>1 "
	after  [3]string // " HOST APP - MSGID [SD] "
}

// append adds one framed message: "LENGTH <PRI>1 TIME HOST APP PROCID MSGID SD MSG".
func (f *format) append(b []byte, r *sink.Record) []byte {
	return f.render(b, r, true)
}

// render adds one message, after its length when counted.
func (f *format) render(b []byte, r *sink.Record, counted bool) []byte {
	h, ok := f.heads[r.Origin]
	if !ok {
		if f.heads == nil || len(f.heads) > 8192 {
			f.heads = map[*sink.Origin]head{}
		}
		h = newHead(r.Origin)
		f.heads[r.Origin] = h
	}
	const stamp = "2006-01-02T15:04:05.000000Z"
	before, after := h.before[r.Std], h.after[r.Std]
	if len(r.Fields) > 0 {
		after = strings.TrimSuffix(after, "] ") + fields(r) + "] "
	}
	if counted {
		b = strconv.AppendInt(b, int64(len(before)+len(stamp)+len(after)+len(r.Line)), 10)
		b = append(b, ' ')
	}
	b = append(b, before...)
	b = r.Time().AppendFormat(b, stamp)
	b = append(b, after...)
	return append(b, r.Line...)
}

// fields renders what was parsed from the line like labels.
func fields(r *sink.Record) string {
	var b strings.Builder
	for _, f := range r.Fields {
		b.WriteString(` field="`)
		b.WriteString(escape.Replace(strings.ToValidUTF8(f.Name+"="+f.Value, "\uFFFD")))
		b.WriteByte('"')
	}
	return b.String()
}

func newHead(o *sink.Origin) (h head) {
	app := o.Name
	if app == "" {
		app = o.Path[strings.LastIndexByte(o.Path, '/')+1:]
	}
	data := structured(o)
	for std := range h.before {
		severity, id := info, "file"
		switch decode.Std(std) {
		case decode.Stdout:
			id = "stdout"
		case decode.Stderr:
			severity, id = failed, "stderr"
		}
		h.before[std] = "<" + strconv.Itoa(facility*8+severity) + ">1 "
		h.after[std] = " " + name(o.Host, 255) + " " + name(app, 48) + " - " + id + " " + data + " "
	}
	return h
}

// structured renders the origin as one SD-ELEMENT. Labels are repeated parameters (RFC 5424, 6.3.3 allows that),
// because their keys are longer than the 32 characters that a parameter's name may have.
func structured(o *sink.Origin) string {
	var b strings.Builder
	b.WriteString("[" + sdID)
	param := func(name, value string) {
		if value != "" {
			b.WriteString(" " + name + `="`)
			b.WriteString(escape.Replace(strings.ToValidUTF8(value, "\uFFFD")))
			b.WriteByte('"')
		}
	}
	param("runtime", o.Runtime)
	param("id", o.ID)
	param("name", o.Name)
	param("image", o.Image)
	param("namespace", o.Namespace)
	param("pod", o.Pod)
	param("path", o.Path)
	if o.Addr.IsValid() {
		param("addr", o.Addr.String())
	}
	keys := make([]string, 0, len(o.Labels))
	for k := range o.Labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		param("label", k+"="+o.Labels[k])
	}
	b.WriteByte(']')
	return b.String()
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// name makes a header field: printable ASCII without spaces, at most limit long, "-" for nothing.
func name(s string, limit int) string {
	b := []byte(s[:min(len(s), limit)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '_'
		}
	}
	if len(b) == 0 {
		return "-"
	}
	return string(b)
}
