package main

import (
	"errors"
	"net/http"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/logship"
)

type logsAnswer struct {
	Streams []logship.StreamStatus `json:"streams"`
	Sinks   []logship.SinkStatus   `json:"sinks"`
}

// logsRoutes are the operator API of the part logship.
func logsRoutes(s *api.Server, l *logship.Logship) {
	s.Handle("GET /v1/logs", func(*http.Request) (any, error) { return logsAnswer{l.Streams(), l.Sinks()}, nil })
	s.Handle("GET /v1/logs/verify", func(*http.Request) (any, error) { return l.Verify() })
	s.HandleStream("POST /v1/logs/resend", func(r *http.Request, say func(any)) (any, error) {
		var q logship.ResendRequest
		if err := api.Body(r, &q); err != nil {
			return nil, err
		}
		a, err := l.Resend(r.Context(), q, func(now []logship.Resent) { say(now) })
		if errors.Is(err, logship.ErrNoLog) || errors.Is(err, logship.ErrNoSink) || errors.Is(err, logship.ErrNothingSince) {
			err = api.Errorf(http.StatusNotFound, "%v", err)
		}
		return a, err
	})
}
