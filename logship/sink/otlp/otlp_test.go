package otlp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestOTLPKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := &sinktest.HTTP{Decode: func(body []byte) (out []string, err error) {
			err = parse(body, func(_, _, line string) { out = append(out, line) })
			return out, err
		}}
		h := r.Harness(t)
		h.New = func() sink.Sink { return New(post.Options{URL: r.URL + "/v1/logs"}) }
		return h
	})
}

// parse reads a request: attributes as k=v, then time and attributes of the record, then its text.
func parse(body []byte, record func(resource, about, line string)) error {
	pair := func(b []byte) (out string) {
		_ = sinktest.Fields(b, func(number int, _ uint64, b []byte) error {
			if number == 1 {
				out = string(b)
				return nil
			}
			return sinktest.Fields(b, func(_ int, _ uint64, b []byte) error { out += "=" + string(b); return nil })
		})
		return out
	}
	return sinktest.Fields(body, func(_ int, _ uint64, b []byte) error {
		var resource []string
		return sinktest.Fields(b, func(number int, _ uint64, b []byte) error {
			if number == 1 {
				return sinktest.Fields(b, func(_ int, _ uint64, b []byte) error { resource = append(resource, pair(b)); return nil })
			}
			return sinktest.Fields(b, func(_ int, _ uint64, b []byte) error {
				about, line := "", ""
				err := sinktest.Fields(b, func(number int, v uint64, b []byte) error {
					switch number {
					case 1:
						about = fmt.Sprint(v)
					case 5:
						return sinktest.Fields(b, func(kind int, _ uint64, b []byte) error {
							line = string(b)
							about += fmt.Sprint(" kind ", kind)
							return nil
						})
					case 6:
						about += " " + pair(b)
					}
					return nil
				})
				record(strings.Join(resource, " "), about, line)
				return err
			})
		})
	})
}

func TestRecordsOfEachOriginAreUnderTheirResource(t *testing.T) {
	t.Parallel()
	a := &sink.Origin{Host: "web1", Name: "shop", Pod: "p", Labels: map[string]string{"tier": "front"}}
	b := &sink.Origin{Host: "web1", Path: "/x"}
	var got []string
	body := (&format{}).Body(nil, []sink.Record{
		{Origin: a, At: 7, Std: decode.Stdout, Line: []byte("one")}, {Origin: a, At: 8, Std: decode.Stderr}, {Origin: b, At: 9, Line: []byte("\xff")}})
	if err := parse(body, func(r, about, line string) { got = append(got, r+" | "+about+" | "+line) }); err != nil {
		t.Fatal(err)
	}
	want := "host.name=web1 container.name=shop k8s.pod.name=p container.label.tier=front | 7 kind 1 log.iostream=stdout | one\n" +
		"host.name=web1 container.name=shop k8s.pod.name=p container.label.tier=front | 8 kind 1 log.iostream=stderr | \n" +
		"host.name=web1 log.file.path=/x | 9 kind 7 | \xff"
	if strings.Join(got, "\n") != want {
		t.Errorf("\n got %q\nwant %q", strings.Join(got, "\n"), want)
	}
}

func TestAPartialSuccessRejectsAllBecauseItDoesNotSayWhich(t *testing.T) {
	t.Parallel()
	inner := post.AppendField([]byte{1 << 3, 2}, 2, "too old")
	n, rejected, err := (&format{}).Verdict(post.AppendField(nil, 1, string(inner)), make([]sink.Record, 3))
	if err != nil || n != 3 || len(rejected) != 3 || !strings.Contains(rejected[2].Reason, "2 of 3") || !strings.Contains(rejected[2].Reason, "too old") {
		t.Errorf("%d, %+v, %v", n, rejected, err)
	}
	if _, rejected, _ := (&format{}).Verdict(post.AppendField(nil, 1, ""), make([]sink.Record, 3)); len(rejected) != 0 {
		t.Errorf("an empty partial success rejects %+v", rejected)
	}
}
