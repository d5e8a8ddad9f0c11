package ndjson

import (
	"bufio"
	"bytes"
	"encoding/json"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestNDJSONKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := &sinktest.HTTP{Decode: func(body []byte) (out []string, err error) {
			lines := bufio.NewScanner(bytes.NewReader(body))
			lines.Buffer(nil, 4<<20)
			for lines.Scan() {
				var doc struct{ Message string }
				if err := json.Unmarshal(lines.Bytes(), &doc); err != nil {
					return nil, err
				}
				out = append(out, doc.Message)
			}
			return out, lines.Err()
		}}
		h := r.Harness(t)
		h.New = func() sink.Sink { return New(post.Options{URL: r.URL}) }
		return h
	})
}
