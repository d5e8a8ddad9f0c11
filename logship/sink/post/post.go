// Package post is what all sinks over HTTP share: one request at a time, and what its answer means for the records.
//
//	2xx            the receiver has them, but for those that the answer names
//	400 413 422    one of them is at fault: halves are tried until it stands alone, and is rejected
//	429, 5xx       repeated by the caller, not before Retry-After
//	other          repeated: a wrong token or path is mended by a person, and no line is worth less for it
//
// It owns its connections. A request whose answer never came may have been stored, which the receipt says.
package post

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

// Format is one wire format.
type Format interface {
	// Body renders records into buf[:0], which it may grow.
	Body(buf []byte, records []sink.Record) []byte
	// Header gives the headers of every request.
	Header() http.Header
	// Verdict reads the body of a 2xx answer. It gives how many of the records, from the first, are settled, and which
	// of those were rejected.
	Verdict(answer []byte, records []sink.Record) (settled int, rejected []sink.Rejection, err error)
}

// Options are what the configuration may say of every sink over HTTP.
type Options struct {
	URL       string
	Headers   map[string]string
	TLS       TLS
	BasicUser string
	// PasswordFile and TokenFile are read with each request, so that a renewed secret needs no restart.
	PasswordFile string
	TokenFile    string
}

// TLS says whom to trust and who we are; empty fields are the system's roots and nobody.
type TLS struct {
	CA   string `yaml:"ca" doc:"file with the certificates to trust; empty: the system's"`
	Cert string `yaml:"cert" doc:"file with our own certificate"`
	Key  string `yaml:"key" doc:"file with its key"`
}

// Config reads the files.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read trusted certificates: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read trusted certificates: none in %s", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read own certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Sink posts records in one format. See sink.Sink.
type Sink struct {
	opts   Options
	format Format
	client *http.Client
	buf    []byte
}

// New makes a sink; it touches nothing.
func New(o Options, f Format) *Sink { return &Sink{opts: o, format: f} }

// Class is Acknowledged: the receiver has answered that it has them.
func (s *Sink) Class() sink.Class { return sink.Acknowledged }

// Pace gathers lines, so that a request does not carry one only.
func (s *Sink) Pace() time.Duration { return 20 * time.Millisecond }

// Resume has nothing to undo.
func (s *Sink) Resume(context.Context, string) (string, error) { return "", nil }

// answerTime is how long a receiver may think about one request.
const answerTime = 60 * time.Second

func (s *Sink) connect() error {
	if s.client != nil {
		return nil
	}
	conf, err := s.opts.TLS.Config()
	if err != nil {
		return err
	}
	s.client = &http.Client{Timeout: answerTime, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, MaxIdleConns: 1, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		DisableCompression: true, WriteBufferSize: 64 << 10,
	}}
	return nil
}

// Deliver posts the records in one request, or in several when some of them are refused.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record, _ func(string)) (sink.Receipt, error) {
	if err := s.connect(); err != nil {
		return sink.Receipt{}, err
	}
	return s.some(ctx, records, 0)
}

// some posts records, whose first has the index base.
func (s *Sink) some(ctx context.Context, records []sink.Record, base int) (sink.Receipt, error) {
	s.buf = s.format.Body(s.buf[:0], records)
	answer, err := s.post(ctx)
	var bad *refused
	switch {
	case errors.As(err, &bad) && len(records) == 1:
		return sink.Receipt{Acked: 1, Rejected: []sink.Rejection{{Index: base, Reason: bad.Error()}}}, nil
	case errors.As(err, &bad):
		half := len(records) / 2
		first, err := s.some(ctx, records[:half], base)
		if err != nil || first.Acked < half {
			return first, err
		}
		second, err := s.some(ctx, records[half:], base+half)
		second.Acked += half
		second.Rejected = append(first.Rejected, second.Rejected...)
		return second, err
	case err != nil:
		unsure := len(records)
		if errors.Is(err, errAnswered) || notBegun(err) {
			unsure = 0
		}
		return sink.Receipt{Unsure: unsure}, err
	}
	settled, rejected, err := s.format.Verdict(answer, records)
	for i := range rejected {
		rejected[i].Index += base
	}
	return sink.Receipt{Acked: settled, Rejected: rejected}, err
}

// refused is an answer that says that the records are at fault.
type refused struct{ text string }

func (r *refused) Error() string { return r.text }

// errAnswered marks errors that the receiver stated: nothing was stored.
var errAnswered = errors.New("refused")

// notBegun tells whether there was no connection, so that nothing can have arrived.
func notBegun(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// post sends the buffer and gives the body of a good answer.
func (s *Sink) post(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL, bytes.NewReader(s.buf))
	if err != nil {
		return nil, fmt.Errorf("post: %w", err)
	}
	req.GetBody = nil
	req.Header = s.format.Header().Clone()
	req.Header.Set("User-Agent", "fairlead")
	for k, v := range s.opts.Headers {
		req.Header.Set(k, v)
	}
	if err := s.authorize(req); err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("post: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("post: %w", err)
	}
	defer resp.Body.Close()
	const answerLimit = 16 << 20
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	switch code := resp.StatusCode; {
	case code/100 == 2 && err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case code/100 == 2:
		return answer, nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return nil, &refused{explain(resp.Status, answer)}
	}
	err = fmt.Errorf("%w: %s", errAnswered, explain(resp.Status, answer))
	if after := retryAfter(resp.Header.Get("Retry-After"), time.Now()); after > 0 {
		return nil, &sink.Later{After: after, Err: err}
	}
	return nil, err
}

func (s *Sink) authorize(req *http.Request) error {
	secret := func(path string) (string, error) {
		text, err := os.ReadFile(path)
		return strings.TrimSpace(string(text)), err
	}
	switch {
	case s.opts.TokenFile != "":
		token, err := secret(s.opts.TokenFile)
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case s.opts.BasicUser != "":
		password, err := secret(s.opts.PasswordFile)
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		req.SetBasicAuth(s.opts.BasicUser, password)
	}
	return nil
}

func explain(status string, answer []byte) string {
	return strings.TrimSpace(status + " " + strings.ToValidUTF8(string(answer[:min(len(answer), 512)]), "\uFFFD"))
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3). An hour is the most that is believed.
func retryAfter(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	d := time.Duration(0)
	if n, err := strconv.Atoi(v); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), time.Hour)
}

// Close closes the connections.
func (s *Sink) Close() error {
	if s.client != nil {
		s.client.CloseIdleConnections()
		s.client = nil
	}
	return nil
}
