package loki

import (
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

func TestParsedFieldsAreMetadataOfTheirLineOnly(t *testing.T) {
	t.Parallel()
	o := &sink.Origin{Host: "web1", Labels: map[string]string{"tier": "front"}}
	got, err := parse((&format{index: map[key]int{}}).Body(nil, []sink.Record{
		{Origin: o, At: 1, Line: []byte("a"), Fields: []sink.Field{{Name: "http.status", Value: "200"}, {Name: "q", Value: "\xff"}}}, {Origin: o, At: 2, Line: []byte("b")}}))
	if err != nil || len(got) != 2 {
		t.Fatalf("%v %+v", err, got)
	}
	if a, b := strings.Join(got[0].tags, " "), strings.Join(got[1].tags, " "); a != "tier front http_status 200 q \uFFFD" || b != "tier front" {
		t.Errorf("metadata %q and %q", a, b)
	}
}
