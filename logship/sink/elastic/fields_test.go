package elastic

import (
	"encoding/json"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

func TestParsedFieldsAreAnObjectOfTheirDocument(t *testing.T) {
	t.Parallel()
	o := &sink.Origin{Host: "web1"}
	b := Document(nil, &sink.Record{Origin: o, Line: []byte("one"), Fields: []sink.Field{{Name: "host", Value: "other"}, {Name: "q\"", Value: "\xff\n"}}}, About(o))
	var got struct {
		Message, Host string
		Fields        map[string]string
	}
	if err := json.Unmarshal(b, &got); err != nil || got.Message != "one" || got.Host != "web1" || got.Fields["host"] != "other" || got.Fields["q\""] != "\uFFFD\n" {
		t.Errorf("%v: %s", err, b)
	}
}
