package loki

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestLokiKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := &sinktest.HTTP{Decode: func(body []byte) ([]string, error) {
			entries, err := parse(body)
			var out []string
			for _, e := range entries {
				out = append(out, e.line)
			}
			return out, err
		}}
		h := r.Harness(t)
		h.New = func() sink.Sink { return New(post.Options{URL: r.URL + "/loki/api/v1/push"}) }
		return h
	})
}

// entry is what an independent reader of the wire format found.
type entry struct {
	labels, line string
	sec, nanos   uint64
	tags         []string
}

func parse(body []byte) (out []entry, err error) {
	raw, err := s2.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	err = sinktest.Fields(raw, func(_ int, _ uint64, stream []byte) error {
		labels := ""
		return sinktest.Fields(stream, func(number int, _ uint64, b []byte) error {
			if number == 1 {
				labels = string(b)
				return nil
			}
			e := entry{labels: labels}
			err := sinktest.Fields(b, func(number int, _ uint64, b []byte) error {
				switch number {
				case 1:
					return sinktest.Fields(b, func(number int, v uint64, _ []byte) error {
						if number == 1 {
							e.sec = v
						} else {
							e.nanos = v
						}
						return nil
					})
				case 2:
					e.line = string(b)
				case 3:
					return sinktest.Fields(b, func(_ int, _ uint64, b []byte) error { e.tags = append(e.tags, string(b)); return nil })
				}
				return nil
			})
			out = append(out, e)
			return err
		})
	})
	return out, err
}

func TestAPushHasLabelsTimesAndMetadataOfEachStream(t *testing.T) {
	t.Parallel()
	f := &format{index: map[key]int{}}
	a := &sink.Origin{Host: "web1", Name: `sh"op`, ID: "c0", Addr: netip.MustParseAddr("10.1.2.3"), Labels: map[string]string{"com.x/tier": "front", "9": "n"}}
	b := &sink.Origin{Host: "web1", Path: "/var/log/x"}
	records := []sink.Record{
		{Origin: a, At: 1_795_000_000_000_000_007, Std: decode.Stdout, Line: []byte("one")},
		{Origin: b, At: 5, Line: []byte("\xfftwo")},
		{Origin: a, At: 1_795_000_000_999_999_999, Std: decode.Stdout, Line: nil},
		{Origin: a, At: 1, Std: decode.Stderr, Line: []byte("err")},
	}
	for range 2 { // the second time in used memory
		got, err := parse(f.Body(nil, records))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 4 || got[0].line != "one" || got[1].line != "" || got[2].line != "\uFFFDtwo" || got[3].line != "err" {
			t.Fatalf("got %+v", got)
		}
		const want = `{job="fairlead", host="web1", id="c0", name="sh\"op", addr="10.1.2.3", stream="stdout"}`
		if got[0].labels != want || got[2].labels != `{job="fairlead", host="web1", path="/var/log/x"}` {
			t.Errorf("labels %s and %s", got[0].labels, got[2].labels)
		}
		if got[0].sec != 1_795_000_000 || got[0].nanos != 7 || got[1].nanos != 999_999_999 {
			t.Errorf("times %+v", got)
		}
		if tags := strings.Join(got[0].tags, " "); tags != "_9 n com_x_tier front" {
			t.Errorf("metadata %q", tags)
		}
	}
}
