package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
)

// line is one line of a streamed answer. Exactly one line has a result or an error, and it is the last.
type line struct {
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
	Status   int             `json:"status,omitempty"`
}

// HandleStream answers requests for pattern with lines of JSON, for work that takes long: {"progress": ...} for each
// call of say, and at the end {"result": ...} or {"error": "...", "status": 500}. A fault before the first progress is
// answered as Handle does. The request's context ends when the client hangs up. say is safe for concurrent use until h
// returns and does not fail. It may be called while the server runs; the same pattern twice panics.
func (s *Server) HandleStream(pattern string, h func(r *http.Request, say func(progress any)) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		// net/http notices that a client hangs up only once the request has been read to its end.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			s.answer(w, r, nil, Errorf(http.StatusBadRequest, "read request: %v", err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		control := http.NewResponseController(w)
		// The server's ReadTimeout is for requests; here it would end the context in the middle of the work.
		_ = control.SetReadDeadline(time.Time{})
		out := &lines{w: w, flush: func() { _ = control.Flush() }}
		var answer any
		err = agent.Go(r.Context(), func(context.Context) (err error) { answer, err = h(r, out.say); return err })
		if !out.begun() {
			s.answerLine(w, r, answer, err, out)
			return
		}
		out.end(s.last(r, answer, err))
	})
}

// answerLine answers where no progress was said: a fault gets its HTTP status.
func (s *Server) answerLine(w http.ResponseWriter, r *http.Request, answer any, err error, out *lines) {
	if err != nil {
		s.answer(w, r, nil, err)
		return
	}
	out.end(s.last(r, answer, nil))
}

// last makes the last line.
func (s *Server) last(r *http.Request, answer any, err error) line {
	if p, ok := errors.AsType[*agent.PanicError](err); ok {
		s.log.Error("handler panicked", "path", r.URL.Path, "err", err, "stack", string(p.Stack))
		err = Errorf(http.StatusInternalServerError, "the agent failed to answer %s %s (its log says why)", r.Method, r.URL.Path)
	}
	var result json.RawMessage
	if err == nil {
		if result, err = json.Marshal(answer); err != nil {
			err = fmt.Errorf("encode answer: %w", err)
		}
	}
	if err == nil {
		return line{Result: result}
	}
	status := http.StatusInternalServerError
	if e, ok := errors.AsType[*Error](err); ok {
		status = e.Status
	}
	return line{Error: err.Error(), Status: status}
}

// lines writes a streamed answer.
type lines struct {
	mu     sync.Mutex
	w      http.ResponseWriter
	flush  func()
	wrote  bool
	closed bool
}

func (l *lines) say(progress any) {
	b, err := json.Marshal(progress)
	if err != nil {
		return // the work matters more than its progress
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(line{Progress: b})
}

func (l *lines) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrote
}

func (l *lines) end(last line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(last)
	l.closed = true
}

func (l *lines) write(v line) {
	if l.closed {
		return
	}
	if !l.wrote {
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.wrote = true
	}
	b, err := json.Marshal(v)
	if err != nil {
		return // strings and valid JSON always encode
	}
	_, _ = l.w.Write(append(b, '\n')) // a client that went away is nobody's fault
	l.flush()
}

// Stream posts in to path, calls progress (which may be nil) with each progress that the agent says, as JSON, and
// decodes the result into out, which may be nil. Faults are as for Post. It blocks until the end of the work or of ctx.
func (c *Client) Stream(ctx context.Context, path string, in, out any, progress func(json.RawMessage)) error {
	resp, err := c.send(ctx, http.MethodPost, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for r := bufio.NewReader(resp.Body); ; {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return c.explain(ctx, err) // the last line never came
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("understand the agent's answer on %s: %w", path, err)
		}
		switch {
		case l.Error != "":
			return &Error{Status: l.Status, Message: l.Error}
		case l.Progress != nil:
			if progress != nil {
				progress(l.Progress)
			}
		case out == nil:
			return nil
		default:
			if err := json.Unmarshal(l.Result, out); err != nil {
				return fmt.Errorf("understand the agent's answer on %s: %w", path, err)
			}
			return nil
		}
	}
}
