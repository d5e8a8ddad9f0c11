// Package api is the operator's way into the agent: HTTP with JSON on a unix socket, for root and the group fairlead
// only, and the client that the commands use. It also serves the scrape endpoint, which is open to the network that
// it listens on and carries nothing but /metrics and /healthz.
//
//	fairlead status ── Client ──> agent.sock ── who is it? ── Server ── handler (the parts' answers, wired in cmd)
//	Prometheus ────────────────────────> 127.0.0.1:9478 ──── HTTP ─── /metrics, /healthz
//
// It owns the socket and the lock file beside it, by which a second agent on the same socket is refused. After a
// crash the kernel has given the lock back, and the stale socket is replaced.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
)

const (
	maxRequest    = 1 << 20         // bytes of a request's body
	shutdownBound = 3 * time.Second // for requests that are being answered; less than the supervisor gives a part
)

// Server is the operator API on its unix socket.
type Server struct {
	socket string
	group  string
	log    *slog.Logger
	mux    *http.ServeMux
}

// New makes a Server for the socket path; members of group (a name, may be empty or unknown to this host) may use it
// beside root and the agent's own user. It touches nothing.
func New(socket, group string, log *slog.Logger) *Server {
	return &Server{socket: socket, group: group, log: log, mux: http.NewServeMux()}
}

// Error is a failure whose HTTP status matters to the caller: 404 for what does not exist, 409 for a conflict. Any
// other error of a handler is answered with 500.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an *Error.
func Errorf(status int, format string, args ...any) error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// Handle answers requests for pattern (net/http's: "GET /v1/status") with what h returns, as JSON; an error is
// answered as {"error": "..."} and a panic as 500. h runs for several requests at once. It may be called while the
// server runs; the same pattern twice panics.
func (s *Server) Handle(pattern string, h func(*http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		var answer any
		err := agent.Go(r.Context(), func(context.Context) (err error) { answer, err = h(r); return err })
		s.answer(w, r, answer, err)
	})
}

// Body decodes the request's JSON into v, strictly; what it does not understand is the caller's fault (400).
func Body(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Errorf(http.StatusBadRequest, "read request: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Errorf(http.StatusBadRequest, "read request: more than one value")
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if p, ok := errors.AsType[*agent.PanicError](err); ok {
		s.log.Error("handler panicked", "path", r.URL.Path, "err", err, "stack", string(p.Stack))
		err = Errorf(http.StatusInternalServerError, "the agent failed to answer %s %s (its log says why)", r.Method, r.URL.Path)
	}
	var body bytes.Buffer
	if err == nil {
		if err = encode(&body, v); err != nil {
			s.log.Error("answer could not be encoded", "path", r.URL.Path, "err", err)
			err = fmt.Errorf("encode answer: %w", err)
			body.Reset()
		}
	}
	status := http.StatusOK
	if err != nil {
		status = http.StatusInternalServerError
		if e, ok := errors.AsType[*Error](err); ok {
			status = e.Status
		}
		_ = encode(&body, failure{err.Error()}) // one string always encodes
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a client that went away is nobody's fault
}

type failure struct {
	Error string `json:"error"`
}

func encode(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Run serves until ctx ends; requests that are being answered then have three seconds to finish. It fails when
// another agent holds the socket. It may be called again after it has returned.
func (s *Server) Run(ctx context.Context) error {
	l, release, err := s.listen()
	if err != nil {
		return err
	}
	defer release()
	s.log.Info("operator API opened", "path", s.socket)
	agent.Ready(ctx)
	return serve(ctx, l, &http.Server{
		Handler:           http.HandlerFunc(s.admit),
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	})
}

// Part is the Server as the supervisor runs it.
func (s *Server) Part() agent.Part { return agent.Part{Name: "api", Run: s.Run} }

// admit lets in who may use the API and puts even the mux's own refusals into JSON.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) {
	if err := s.mayUse(peerOf(r.Context())); err != nil {
		s.log.Warn("request refused", "path", r.URL.Path, "err", err)
		s.answer(w, r, nil, &Error{http.StatusForbidden, err.Error()})
		return
	}
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r) // and not h: the mux sets the path values
		return
	}
	refusal := &statusOnly{header: w.Header(), status: http.StatusNotFound}
	h.ServeHTTP(refusal, r)
	s.answer(w, r, nil, Errorf(refusal.status, "%s: %s %s", http.StatusText(refusal.status), r.Method, r.URL.Path))
}

// statusOnly keeps a handler's status and drops its text.
type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.header }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }

// serve runs srv on l until ctx ends, then lets open requests finish within shutdownBound. It closes l.
func serve(ctx context.Context, l net.Listener, srv *http.Server) error {
	return serveBy(ctx, l, func(srv *http.Server, l net.Listener) error { return srv.Serve(l) }, srv)
}

// serveBy is serve with another way to accept connections than plain HTTP.
func serveBy(ctx context.Context, l net.Listener, by func(*http.Server, net.Listener) error, srv *http.Server) error {
	srv.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) } // they may finish
	served := make(chan error, 1)
	go func() {
		served <- agent.Go(ctx, func(context.Context) error { return by(srv, l) })
	}()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve %s: %w", l.Addr(), err), srv.Close())
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownBound)
	defer cancel()
	if err := srv.Shutdown(bound); err != nil {
		_ = srv.Close() // cuts what is left; its own error says nothing that Shutdown's did not
		return errors.Join(fmt.Errorf("close %s: requests were still being answered: %w", l.Addr(), err), unlessClosed(<-served))
	}
	return unlessClosed(<-served)
}

// unlessClosed passes over what Serve returns when it was told to stop.
func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
