// Package ndjson is the sink for receivers of one's own: one JSON object a line, posted over HTTP. Any 2xx answer is an
// acknowledgement of the whole request.
package ndjson

import (
	"net/http"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/elastic"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// New makes a sink that posts to o.URL; it touches nothing.
func New(o post.Options) *post.Sink { return post.New(o, &format{}) }

type format struct{ about sink.Cache[string] }

func (f *format) Header() http.Header { return http.Header{"Content-Type": {"application/x-ndjson"}} }

func (f *format) Body(b []byte, records []sink.Record) []byte {
	for i := range records {
		b = elastic.Document(b, &records[i], f.about.Get(records[i].Origin, elastic.About))
		b = append(b, '\n')
	}
	return b
}

func (f *format) Verdict(_ []byte, records []sink.Record) (int, []sink.Rejection, error) {
	return len(records), nil, nil
}
