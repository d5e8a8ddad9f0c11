// Package elastic is the sink that posts to the bulk interface of Elasticsearch and OpenSearch.
//
// Each record is created under an id made of its file and offset, so that one that is sent again is stored once (409 is
// as good as 201). Lines of plain files have no such key and get the receiver's ids.
// The answer has a status for each record: a record that is refused for good is rejected, from the first that is to be
// repeated on all are sent again.
package elastic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// New makes a sink that posts to o.URL, which ends in /_bulk, into an index or data stream; it touches nothing.
func New(o post.Options, index string) *post.Sink {
	return post.New(o, &format{index: string(post.AppendJSON(nil, index))})
}

type format struct {
	index string
	about sink.Cache[string]
}

func (f *format) Header() http.Header {
	return http.Header{"Content-Type": {"application/x-ndjson"}}
}

func (f *format) Body(b []byte, records []sink.Record) []byte {
	for i := range records {
		r := &records[i]
		b = append(append(b, `{"create":{"_index":`...), f.index...)
		if r.Key != (sink.Key{}) {
			b = append(b, `,"_id":"`...)
			b = strconv.AppendUint(b, r.Key.File, 36)
			b = strconv.AppendInt(append(b, '-'), r.Key.Off, 36)
			b = strconv.AppendInt(append(b, '-'), r.At, 36)
			b = append(b, '"')
		}
		b = append(b, "}}\n"...)
		b = Document(b, r, f.about.Get(r.Origin, About))
		b = append(b, '\n')
	}
	return b
}

// Document adds a record as one JSON object; about is what About gives for its origin.
func Document(b []byte, r *sink.Record, about string) []byte {
	b = append(b, `{"@timestamp":"`...)
	b = r.Time().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","message":`...)
	b = post.AppendJSON(b, r.Line)
	if std := r.Std.String(); std != "" {
		b = append(append(append(b, `,"stream":"`...), std...), '"')
	}
	b = append(b, about...)
	if len(r.Fields) > 0 {
		b = append(b, `,"fields":{`...)
		for i, f := range r.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = post.AppendJSON(append(post.AppendJSON(b, f.Name), ':'), f.Value)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// About renders an origin as members of an object, each after a comma.
func About(o *sink.Origin) string {
	var b []byte
	for _, f := range o.Fields() {
		b = append(append(append(b, `,"`...), f.Name...), `":`...)
		b = post.AppendJSON(b, f.Value)
	}
	if tags := o.Tags(); len(tags) > 0 {
		b = append(b, `,"labels":{`...)
		for i, t := range tags {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(post.AppendJSON(b, t.Name), ':')
			b = post.AppendJSON(b, t.Value)
		}
		b = append(b, '}')
	}
	return string(b)
}

type answer struct {
	Errors bool `json:"errors"`
	Items  []struct {
		Create struct {
			Status int             `json:"status"`
			Error  json.RawMessage `json:"error"`
		} `json:"create"`
	} `json:"items"`
}

func (f *format) Verdict(text []byte, records []sink.Record) (int, []sink.Rejection, error) {
	head := text[:min(len(text), 256)]
	if bytes.Contains(head, []byte(`"errors":false`)) {
		return len(records), nil, nil
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	if len(a.Items) != len(records) {
		return 0, nil, fmt.Errorf("answer has %d items for %d records", len(a.Items), len(records))
	}
	var rejected []sink.Rejection
	for i, item := range a.Items {
		switch status := item.Create.Status; {
		case status/100 == 2, status == http.StatusConflict:
		case status == http.StatusTooManyRequests, status/100 == 5, status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound:
			return i, rejected, fmt.Errorf("item refused: %d %s", status, item.Create.Error)
		default:
			rejected = append(rejected, sink.Rejection{Index: i, Reason: fmt.Sprintf("%d %s", status, item.Create.Error)})
		}
	}
	return len(records), rejected, nil
}
