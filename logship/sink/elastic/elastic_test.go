package elastic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// index is a bulk receiver that knows ids, and refuses poison with 400.
type index struct{ ids map[string]bool }

type item struct {
	id, line string
	status   int
}

func (x *index) read(body []byte) (items []item, err error) {
	parts := bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	if len(parts)%2 != 0 {
		return nil, errors.New("odd number of lines")
	}
	for i := 0; i < len(parts); i += 2 {
		var head struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"create"`
		}
		var doc struct{ Message string }
		if err := errors.Join(json.Unmarshal(parts[i], &head), json.Unmarshal(parts[i+1], &doc)); err != nil {
			return nil, fmt.Errorf("%s: %w", parts[i+1], err)
		}
		one := item{head.Create.ID, doc.Message, 201}
		switch {
		case head.Create.Index != "logs":
			return nil, errors.New("wrong index")
		case strings.Contains(one.line, sinktest.Poison):
			one.status = 400
		case x.ids[one.id]:
			one.status = 409
		}
		items = append(items, one)
	}
	return items, nil
}

func TestElasticKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		x := &index{ids: map[string]bool{}}
		answer := ""
		r := &sinktest.HTTP{Items: true}
		r.Decode = func(body []byte) (lines []string, err error) {
			items, err := x.read(body)
			var statuses []string
			for _, one := range items {
				statuses = append(statuses, fmt.Sprintf(`{"create":{"status":%d,"error":{"type":"t"}}}`, one.status))
				if one.status == 201 {
					x.ids[one.id] = true
					lines = append(lines, one.line)
				}
			}
			answer = `{"took":1,"errors":true,"items":[` + strings.Join(statuses, ",") + `]}`
			return lines, err
		}
		r.Answer = func([]byte) []byte { return []byte(answer) }
		h := r.Harness(t)
		h.Once = true
		h.New = func() sink.Sink { return New(post.Options{URL: r.URL + "/_bulk"}, "logs") }
		return h
	})
}

func TestFromTheFirstItemThatIsToBeRepeatedOnAllAreSentAgain(t *testing.T) {
	t.Parallel()
	f := &format{}
	text := `{"took":1,"errors":true,"items":[{"create":{"status":201}},{"create":{"status":400,"error":"bad"}},{"create":{"status":429,"error":"busy"}},{"create":{"status":201}}]}`
	n, rejected, err := f.Verdict([]byte(text), make([]sink.Record, 4))
	if n != 2 || len(rejected) != 1 || rejected[0].Index != 1 || err == nil {
		t.Errorf("%d, %+v, %v", n, rejected, err)
	}
	if n, _, err := f.Verdict([]byte(`{"took":1,"errors":false,"items":[]}`), make([]sink.Record, 4)); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, _, err := f.Verdict([]byte(`<html>`), make([]sink.Record, 4)); n != 0 || err == nil {
		t.Errorf("what is no answer settled %d, %v", n, err)
	}
}

func TestADocumentIsJSONWhateverTheLineHolds(t *testing.T) {
	t.Parallel()
	o := &sink.Origin{Host: "web1", Name: `a"b`, Addr: netip.MustParseAddr("10.0.0.1"), Labels: map[string]string{"x": "1\n", "y": "\x00"}}
	for _, line := range []string{"", `plain`, "\"\\\b\t\n\r\x00\x1f\x7f", "ä€😀", "\xff\xfea\xe2\x82", "\u2028"} {
		var got struct {
			Message, Stream, Host, Name, Addr string
			Labels                            map[string]string
		}
		b := Document(nil, &sink.Record{Origin: o, Std: decode.Stderr, Line: []byte(line)}, About(o))
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		text, _ := json.Marshal(line)
		var want string
		_ = json.Unmarshal(text, &want)
		if got.Message != want || got.Name != o.Name || got.Labels["x"] != "1\n" || got.Stream != "stderr" || got.Addr != "10.0.0.1" {
			t.Errorf("line %q: %+v", line, got)
		}
	}
}
