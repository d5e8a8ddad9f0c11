package otlp

import (
	"testing"

	"github.com/fairlead-dev/fairlead/logship/decode"
	"github.com/fairlead-dev/fairlead/logship/sink"
)

func TestParsedFieldsAreAttributesOfTheirRecord(t *testing.T) {
	t.Parallel()
	var got []string
	body := (&format{}).Body(nil, []sink.Record{{Origin: &sink.Origin{Host: "web1"}, At: 7, Std: decode.Stdout, Line: []byte("one"),
		Fields: []sink.Field{{Name: "http.status", Value: "200"}, {Name: "q", Value: "\xff"}}}})
	if err := parse(body, func(_, about, line string) { got = append(got, about+" | "+line) }); err != nil {
		t.Fatal(err)
	}
	if want := "7 kind 1 log.iostream=stdout http.status=200 q=\uFFFD | one"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
