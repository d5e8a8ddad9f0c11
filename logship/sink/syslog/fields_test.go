package syslog

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

func TestParsedFieldsAreParametersOfTheirMessage(t *testing.T) {
	t.Parallel()
	var f format
	o := &sink.Origin{Host: "web1", Name: "shop"}
	got := string(f.append(nil, &sink.Record{Origin: o, Line: []byte("text"), Fields: []sink.Field{{Name: "status", Value: "200"}, {Name: "q", Value: "a\"]\xff"}}}))
	n, body, _ := strings.Cut(got, " ")
	if want := `[fairlead@32473 name="shop" field="status=200" field="q=a\"\]` + "\uFFFD" + `"] text`; !strings.HasSuffix(body, want) || n != strconv.Itoa(len(body)) {
		t.Errorf("got %s, want it to end %s", got, want)
	}
	if again := string(f.append(nil, &sink.Record{Origin: o, Line: []byte("text")})); strings.Contains(again, "field=") {
		t.Errorf("the next message has them too: %s", again)
	}
}
