package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
)

// HTTP is the endpoint that a scrape reads, on TCP; who asks is checked only as SetWebConfig says. It carries /metrics
// and /healthz and nothing by which the agent could be steered.
type HTTP struct {
	listen string
	log    *slog.Logger
	mux    *http.ServeMux
	web    string // file for TLS and passwords; empty is neither

	mu   sync.Mutex
	addr net.Addr
}

// NewHTTP makes an endpoint for the address listen: "127.0.0.1:9478", or ":9478" for every address. It opens nothing.
func NewHTTP(listen string, log *slog.Logger) *HTTP {
	return &HTTP{listen: listen, log: log, mux: http.NewServeMux()}
}

// Handle serves pattern ("GET /metrics") with h; a panic in h is answered with 500. The same pattern twice panics.
func (s *HTTP) Handle(pattern string, h http.Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := agent.Go(r.Context(), func(context.Context) error { h.ServeHTTP(w, r); return nil }); err != nil {
			var stack []byte
			if p, ok := errors.AsType[*agent.PanicError](err); ok {
				stack = p.Stack
			}
			s.log.Error("handler panicked", "path", r.URL.Path, "err", err, "stack", string(stack))
			http.Error(w, "the agent failed to answer; its log says why", http.StatusInternalServerError)
		}
	})
}

// Run serves until ctx ends. It may be called again after it has returned.
func (s *HTTP) Run(ctx context.Context) error {
	if err := CheckWebConfig(s.web); err != nil {
		return fmt.Errorf("open scrape endpoint: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return fmt.Errorf("open scrape endpoint: %w", err)
	}
	s.setAddr(l.Addr())
	defer s.setAddr(nil)
	s.log.Info("scrape endpoint opened", "addr", l.Addr().String())
	agent.Ready(ctx)
	return serveBy(ctx, l, s.secured, &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // Prometheus gives up after scrape_timeout, 10 s by default
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // strangers' broken requests
	})
}

// Part is the endpoint as the supervisor runs it.
func (s *HTTP) Part() agent.Part { return agent.Part{Name: "http", Run: s.Run} }

// Addr is where it listens, nil while it does not.
func (s *HTTP) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

func (s *HTTP) setAddr(a net.Addr) {
	s.mu.Lock()
	s.addr = a
	s.mu.Unlock()
}
