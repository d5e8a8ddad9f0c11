package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// ErrNotRunning is returned when no agent answers on the socket.
var ErrNotRunning = errors.New("fairlead agent is not running")

// ErrNotAllowed is returned when the socket may not be opened by this user.
var ErrNotAllowed = errors.New("not allowed to talk to the fairlead agent")

// Client calls the operator API. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a Client for the socket path. It does not connect.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // one command, one question
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Get asks for path ("/v1/status") and decodes the answer into out, which may be nil. What the agent refuses is an
// *Error with its status and words. It blocks until the answer or the end of ctx.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON (nothing for nil) to path; see Get.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return c.explain(ctx, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("understand the agent's answer on %s: %w", path, err)
	}
	return nil
}

// send asks and gives the answer, whose body the caller closes. A refusal is an error.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	if err := checkLength(c.socket); err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if in != nil {
		if err := encode(&body, in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, &body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return nil, refusal(resp, answer)
}

// refusal gives the agent's own words, or what came in their place.
func refusal(resp *http.Response, answer []byte) error {
	var said failure
	if err := json.Unmarshal(answer, &said); err != nil || said.Error == "" {
		said.Error = "the agent answered " + resp.Status
	}
	return &Error{Status: resp.StatusCode, Message: said.Error}
}

// explain says in one clear sentence why there is no answer.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (no answer on %s)", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w on %s: only root and members of group fairlead may", ErrNotAllowed, c.socket)
	case ctx.Err() != nil:
		return fmt.Errorf("wait for the fairlead agent on %s: %w", c.socket, context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("fairlead agent on %s hung up before it had answered; was it stopped?: %w", c.socket, err)
	}
	return fmt.Errorf("ask the fairlead agent on %s: %w", c.socket, err)
}
