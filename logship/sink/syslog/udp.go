package syslog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
)

// UDP sends each record as one datagram (RFC 5426). See sink.Sink.
type UDP struct {
	addr   string
	format format
	conn   net.Conn
	buf    []byte
}

// NewUDP makes a sink for host:port; it touches nothing.
func NewUDP(addr string) *UDP { return &UDP{addr: addr} }

// Class is FireAndForget: the records have left this host.
func (s *UDP) Class() sink.Class { return sink.FireAndForget }

// Pace is that of TCP.
func (s *UDP) Pace() time.Duration { return 3 * time.Millisecond }

// Resume has nothing to undo.
func (s *UDP) Resume(context.Context, string) (string, error) { return "", nil }

// Deliver sends the records. What is longer than a datagram can be is rejected. A host that answers that nobody listens
// (ECONNREFUSED, for an earlier datagram) is an error, so that lines wait; without that answer they are gone.
func (s *UDP) Deliver(ctx context.Context, records []sink.Record, _ func(string)) (r sink.Receipt, err error) {
	if s.conn == nil {
		d := net.Dialer{Timeout: dialTimeout}
		if s.conn, err = d.DialContext(ctx, "udp", s.addr); err != nil {
			s.conn = nil
			return r, fmt.Errorf("connect: %w", err)
		}
	}
	for i := range records {
		s.buf = s.format.render(s.buf[:0], &records[i], false)
		_, err := s.conn.Write(s.buf)
		switch {
		case errors.Is(err, syscall.EMSGSIZE):
			r.Rejected = append(r.Rejected, sink.Rejection{Index: i, Reason: fmt.Sprintf("%d bytes do not fit a datagram", len(s.buf))})
		case err != nil:
			r.Acked = i
			return r, errors.Join(fmt.Errorf("send to %s: %w", s.addr, err), s.Close())
		}
	}
	r.Acked = len(records)
	return r, nil
}

// Close closes the socket.
func (s *UDP) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
