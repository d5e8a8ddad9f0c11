package post

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

// lines is a format of one line a record, whose receiver names refused lines in a good answer.
type lines struct{}

func (lines) Header() http.Header { return http.Header{} }

func (lines) Body(b []byte, records []sink.Record) []byte {
	for _, r := range records {
		b = append(append(b, r.Line...), '\n')
	}
	return b
}

func (lines) Verdict(answer []byte, records []sink.Record) (int, []sink.Rejection, error) {
	var out []sink.Rejection
	for i, r := range records {
		if slices.ContainsFunc(bytes.Fields(answer), func(l []byte) bool { return bytes.Equal(l, r.Line) }) {
			out = append(out, sink.Rejection{Index: i, Reason: "named"})
		}
	}
	return len(records), out, nil
}

func TestRejectionsKeepTheirIndexWhenARefusedRequestIsDivided(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte("poison")) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for l := range bytes.Lines(body) {
			if bytes.HasPrefix(l, []byte("odd")) {
				_, _ = w.Write(l)
			}
		}
	}))
	defer server.Close()
	s := New(Options{URL: server.URL}, lines{})
	defer s.Close()
	var records []sink.Record
	for _, l := range []string{"a", "odd1", "b", "poison", "c", "d", "odd6", "e", "odd8"} {
		records = append(records, sink.Record{Line: []byte(l)})
	}
	r, err := s.Deliver(t.Context(), records, nil)
	var at []int
	for _, one := range r.Rejected {
		at = append(at, one.Index)
	}
	if err != nil || r.Acked != len(records) || !slices.Equal(at, []int{1, 3, 6, 8}) {
		t.Errorf("%+v, %v", r, err)
	}
}
