package fluent

import (
	"bufio"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

func TestParsedFieldsAreAMapOfTheirRecord(t *testing.T) {
	t.Parallel()
	s := New("127.0.0.1:1", nil, "tag")
	b := s.entry(nil, &sink.Record{Origin: &sink.Origin{Host: "web1"}, Line: []byte("one"), Fields: []sink.Field{{Name: "status", Value: "200"}, {Name: "log", Value: "x"}}})
	v, err := value(bufio.NewReader(bytesReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	record := v.([]any)[1].(map[string]any)
	fields := record["fields"].(map[string]any)
	if record["log"] != "one" || record["host"] != "web1" || len(fields) != 2 || fields["status"] != "200" || fields["log"] != "x" {
		t.Errorf("got %v", record)
	}
}
