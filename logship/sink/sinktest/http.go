package sinktest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Poison is in a line that an HTTP receiver refuses for good.
const Poison = "poison"

// HTTP is a receiver over HTTP on loopback. A request that holds Poison is refused with 400, unless Items is set.
type HTTP struct {
	URL string
	// Decode gives the lines of a request body, and Answer the body of a good answer to it; nil is an empty one.
	Decode func(body []byte) ([]string, error)
	Answer func(body []byte) []byte
	// Items says that the answer has a status for each record, so that nothing is refused whole.
	Items bool

	t       testing.TB
	mu      sync.Mutex
	lines   []string
	fail    int
	after   int
	mode    Mode
	change  *sync.Cond
	ln      net.Listener
	server  *http.Server
	stopped bool
	wg      sync.WaitGroup
}

// Start serves on a free port; Cleanup ends it.
func (h *HTTP) Start(t testing.TB) {
	t.Helper()
	h.t, h.change = t, sync.NewCond(&h.mu)
	h.Up()
	h.URL = "http://" + h.ln.Addr().String()
	t.Cleanup(h.Down)
}

// Up listens, again after Down.
func (h *HTTP) Up() {
	addr := "127.0.0.1:0"
	if h.ln != nil {
		addr = h.ln.Addr().String()
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.ln, h.server = ln, &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	h.set(func() { h.stopped = false })
	server := h.server
	h.wg.Go(func() { _ = server.Serve(ln) })
}

// Down closes the listener and all connections. It may be called twice.
func (h *HTTP) Down() {
	h.set(func() { h.stopped = true })
	_ = h.server.Close()
	h.wg.Wait()
}

// Set changes the mode.
func (h *HTTP) Set(m Mode) { h.set(func() { h.mode = m }) }

// Fail answers with a status, and Retry-After where after is not 0; status 0 ends that.
func (h *HTTP) Fail(status, after int) { h.set(func() { h.fail, h.after = status, after }) }

func (h *HTTP) set(f func()) {
	h.mu.Lock()
	f()
	h.mu.Unlock()
	h.change.Broadcast()
}

// Received gives the lines so far.
func (h *HTTP) Received() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.lines...)
}

func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	for h.mode == Stuck && !h.stopped {
		h.change.Wait()
	}
	mode, fail, after := h.mode, h.fail, h.after
	h.mu.Unlock()
	if mode == Rude { // the connection ends without an answer, and nothing is stored
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = c.Close()
		}
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender has gone
	}
	if fail != 0 {
		if after > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(after))
		}
		http.Error(w, "not now", fail)
		return
	}
	lines, err := h.Decode(body)
	if err != nil {
		h.t.Errorf("request body: %v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, l := range lines {
		if !h.Items && bytes.Contains([]byte(l), []byte(Poison)) {
			http.Error(w, "a line is poisonous", http.StatusBadRequest)
			return
		}
	}
	h.set(func() { h.lines = append(h.lines, lines...) })
	if h.Answer != nil {
		_, _ = w.Write(h.Answer(body))
	}
}

// Harness makes the suite's harness for a driver that make builds for a URL.
func (h *HTTP) Harness(t testing.TB) Harness {
	t.Helper()
	h.Start(t)
	return Harness{Received: h.Received, Down: h.Down, Up: h.Up, Set: h.Set, Fail: h.Fail}
}
