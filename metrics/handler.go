package metrics

import (
	"net/http"
	"strconv"

	"github.com/fairlead-dev/fairlead/metrics/expo"
)

// Handler answers GET /metrics; it is registered under that path by whoever serves HTTP.
func (m *Metrics) Handler() http.Handler { return http.HandlerFunc(m.ServeHTTP) }

// ServeHTTP reads every container now and writes the page in the format and coding that the request accepts.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "metrics are read with GET", http.StatusMethodNotAllowed)
		return
	}
	format := expo.Negotiate(r.Header.Get("Accept"))
	coding := expo.NegotiateCoding(r.Header.Get("Accept-Encoding"))
	want := flavourOf(format, coding)
	a, release, err := m.share.get(r.Context(), want)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // nobody reads it when the client has gone
		return
	}
	defer release()

	body := a.bodies[want].b
	h := w.Header()
	h.Set("Content-Type", format.ContentType())
	h.Set("Vary", "Accept, Accept-Encoding")
	if coding != expo.Identity {
		h.Set("Content-Encoding", coding.String())
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that went away is its own affair
}
