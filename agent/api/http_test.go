package api

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestScrapeEndpointServesAndMayRunAgain(t *testing.T) {
	t.Parallel()
	s := NewHTTP("127.0.0.1:0", quiet())
	s.Handle("GET /metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") }))
	s.Handle("GET /panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") }))
	for range 2 {
		if s.Addr() != nil {
			t.Errorf("listens on %v before Run", s.Addr())
		}
		stop := serving(t, s.Run)
		base := "http://" + s.Addr().String()
		if code, body := get(t, base+"/metrics"); code != 200 || body != "up 1\n" {
			t.Errorf("/metrics: %d %q", code, body)
		}
		if code, _ := get(t, base+"/panic"); code != 500 {
			t.Errorf("a panic was answered with %d", code)
		}
		if code, _ := get(t, base+"/v1/status"); code != 404 {
			t.Errorf("/v1/status was answered with %d", code)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestScrapeEndpointNamesTheAddressThatIsTaken(t *testing.T) {
	t.Parallel()
	first := NewHTTP("127.0.0.1:0", quiet())
	serving(t, first.Run)
	err := NewHTTP(first.Addr().String(), quiet()).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), first.Addr().String()+": bind: address already in use") {
		t.Errorf("got %v", err)
	}
}
