// Package syslog is the sink that sends RFC 5424 over TCP or TLS, framed by octet counts (RFC 6587, RFC 5425), and over
// UDP (RFC 5426), where nobody knows what arrives.
//
// Syslog knows no acknowledgement. What counts is that the peer's kernel has taken every byte (SIOCOUTQ is 0). A peer
// that closes with bytes unread answers with a reset; then the last window of acknowledged messages, which the sink
// keeps, is sent again at once, whether or not there are new records: the window is at least what the peer can hold
// unread, so nothing is lost, and at most the window is doubled. A peer that closes in good order has read everything,
// and nothing is repeated; over TLS it may have read more than it used (see held).
// It owns one connection; after a crash of the agent the kernel still delivers what was written.
package syslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// Sink sends to one receiver. See sink.Sink.
type Sink struct {
	addr   string // host:port
	tls    *post.TLS
	log    *slog.Logger
	format format
	conn   *connection
	kept   window
	taken  time.Time // when the peer's kernel had taken the newest of kept
	resend bool      // what kept holds is doubtful: the last connection was reset, or was TLS and ended soon
	buf    []byte
	ends   []int
	mender *mender
}

// New makes a sink for host:port; it touches nothing.
func New(addr string, log *slog.Logger) *Sink {
	return &Sink{addr: addr, log: log, mender: newMender()}
}

// NewTLS is New over TLS.
func NewTLS(addr string, conf post.TLS, log *slog.Logger) *Sink {
	return &Sink{addr: addr, tls: &conf, log: log, mender: newMender()}
}

// Class is Stream.
func (s *Sink) Class() sink.Class { return sink.Stream }

// Pace lets a busy stream gather into one packet what comes within it.
func (s *Sink) Pace() time.Duration { return 3 * time.Millisecond }

// Resume has nothing to undo.
func (s *Sink) Resume(context.Context, string) (string, error) { return "", nil }

// Deliver writes the records and waits until the peer's kernel has them.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record, written func(string)) (r sink.Receipt, err error) {
	if !s.mender.lock(ctx) {
		return r, context.Cause(ctx)
	}
	defer s.mender.unlock()
	resent, err := s.connect(ctx)
	r.Resent, s.mender.owed = resent+s.mender.owed, 0
	if err != nil {
		return r, err
	}
	s.buf, s.ends = s.buf[:0], s.ends[:0]
	for i := range records {
		s.buf = s.format.append(s.buf, &records[i])
		s.ends = append(s.ends, len(s.buf))
	}
	n, err := s.conn.send(ctx, s.buf, written)
	if err != nil {
		r.Unsure = begun(s.ends, n)
		return r, s.lost(err)
	}
	s.kept.add(s.buf, s.ends, int(s.conn.room.Load()))
	s.taken = time.Now()
	r.Acked = len(records)
	return r, nil
}

// connect makes a connection when there is none, or the last was closed, and sends the kept window again after a reset.
func (s *Sink) connect(ctx context.Context) (resent int, err error) {
	if s.conn != nil {
		why := s.conn.ended()
		if why == nil {
			return 0, nil
		}
		_ = s.lost(why) // the peer left while nothing was under way: a fresh connection is tried at once
	}
	if s.conn, err = dial(ctx, s.addr, s.tls); err != nil {
		return 0, err
	}
	s.watch(s.conn)
	if !s.resend || s.kept.count == 0 {
		s.resend = false
		return 0, nil
	}
	s.log.Warn("connection ended before its last records were surely read; they are sent again", "records", s.kept.count)
	for _, p := range s.kept.pieces {
		n, err := s.conn.send(ctx, p.bytes, nil)
		resent += begun(p.ends, n)
		if err != nil {
			return resent, s.lost(err)
		}
	}
	s.resend = false
	s.kept.again, s.taken = resent, time.Now()
	return resent, nil
}

// lost closes the connection and decides from the reason whether the kept window is doubtful.
func (s *Sink) lost(why error) error {
	// After an orderly end a reset says only that we wrote to a closed door; what was kept had been read. A window that
	// waits to be sent again went out on an earlier connection: of it, this one's end says nothing.
	orderly := errors.Is(why, errLeft) || errors.Is(s.conn.ended(), errLeft)
	switch {
	case !orderly || s.resend:
		s.resend = true
	case s.tls != nil && time.Since(s.taken) < held:
		s.kept.tail(heldBytes)
		s.resend = s.kept.count > 0
	default:
		s.kept.clear()
	}
	_ = s.conn.close()
	s.conn = nil
	return fmt.Errorf("send to %s: %w", s.addr, why)
}

// A TLS peer that closes in good order may have taken bytes from its kernel that it then drops: the record that its TLS
// library had decrypted, and part of the next (16 KiB each, RFC 8446, 5.1). rsyslogd lost up to its last two messages so
// in one of 200 stops. One that leaves longer than held after the last byte, because of an idle timeout, has used them.
const (
	held      = 10 * time.Second
	heldBytes = 2 << 14
)

// Close closes the connection; the kernel goes on delivering what it has.
func (s *Sink) Close() error {
	s.mender.stop()
	defer s.mender.watching.Wait()
	s.mender.lock(context.Background())
	defer s.mender.unlock()
	if s.conn == nil {
		return nil
	}
	err := s.conn.close()
	s.conn = nil
	return err
}

// begun counts the messages of which a byte was written.
func begun(ends []int, written int) int {
	n, start := 0, 0
	for _, end := range ends {
		if start >= written {
			break
		}
		n, start = n+1, end
	}
	return n
}
