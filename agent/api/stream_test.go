package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"
)

type amount struct{ Done int }

func TestLongWorkIsAnsweredInLines(t *testing.T) {
	t.Parallel()
	socket := socketIn(t)
	s := New(socket, "", quiet())
	s.HandleStream("POST /work", func(r *http.Request, say func(any)) (any, error) {
		var in amount
		if err := Body(r, &in); err != nil {
			return nil, err
		}
		for i := range in.Done {
			say(amount{i})
		}
		return amount{in.Done}, nil
	})
	s.HandleStream("POST /fail", func(_ *http.Request, say func(any)) (any, error) {
		say(amount{1})
		return nil, Errorf(http.StatusConflict, "in the middle")
	})
	s.HandleStream("POST /refuse", func(*http.Request, func(any)) (any, error) {
		return nil, Errorf(http.StatusNotFound, "at once")
	})
	s.HandleStream("POST /panic", func(_ *http.Request, say func(any)) (any, error) {
		say(amount{1})
		panic("broken")
	})
	serving(t, s.Run)
	c := NewClient(socket)

	for _, n := range []int{0, 3} {
		var said []amount
		var out amount
		err := c.Stream(t.Context(), "/work", amount{n}, &out, func(raw json.RawMessage) {
			var a amount
			if err := json.Unmarshal(raw, &a); err != nil {
				t.Error(err)
			}
			said = append(said, a)
		})
		if err != nil || out.Done != n || len(said) != n {
			t.Errorf("answered %+v (%v), said %+v", out, err, said)
		}
	}
	for path, want := range map[string]Error{
		"/fail": {http.StatusConflict, "in the middle"}, "/refuse": {http.StatusNotFound, "at once"},
		"/panic": {http.StatusInternalServerError, "the agent failed to answer POST /panic (its log says why)"},
	} {
		err := c.Stream(t.Context(), path, amount{}, nil, nil)
		if e, ok := errors.AsType[*Error](err); !ok || *e != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestClientThatHangsUpEndsLongWork(t *testing.T) {
	t.Parallel()
	socket := socketIn(t)
	s := New(socket, "", quiet())
	ended := make(chan error, 1)
	s.HandleStream("POST /work", func(r *http.Request, say func(any)) (any, error) {
		say(amount{1})
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
		ended <- r.Context().Err()
		return nil, r.Context().Err()
	})
	serving(t, s.Run)
	ctx, cancel := context.WithCancel(t.Context())
	err := NewClient(socket).Stream(ctx, "/work", amount{}, nil, func(json.RawMessage) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the client: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the work: %v", err)
	}
}
