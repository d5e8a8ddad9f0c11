// Package syslog is the sink that sends RFC 5424 over TCP or TLS, framed by octet counts (RFC 6587, RFC 5425), and over
// UDP (RFC 5426), where nobody knows what arrives.
//
// Syslog knows no acknowledgement. What counts is that the peer's kernel has taken every byte (SIOCOUTQ is 0). A peer
// that closes with bytes unread answers with a reset; then the last window of acknowledged messages, which the sink
// keeps, is sent again at once, whether or not there are new records: nothing is lost that fits the window, and at most the window is doubled. A peer that closes in
// good order has read everything, and nothing is repeated.
// It owns one connection; after a crash of the agent the kernel still delivers what was written.
package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// Window is how many bytes of acknowledged messages are kept for the case of a reset.
const Window = 1 << 20

// Sink sends to one receiver. See sink.Sink.
type Sink struct {
	addr   string // host:port
	tls    *post.TLS
	log    *slog.Logger
	format format
	conn   *connection
	kept   window
	resend bool // the last connection was reset: what kept holds is doubtful
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
	s.kept.add(s.buf, s.ends)
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
	if !s.resend || s.kept.records() == 0 {
		s.resend = false
		return 0, nil
	}
	resent = s.kept.records()
	s.log.Warn("connection was reset; the last window is sent again", "records", resent)
	if n, err := s.conn.send(ctx, s.kept.bytes(), nil); err != nil {
		return begun(s.kept.ends, n), s.lost(err)
	}
	s.resend = false
	return resent, nil
}

// lost closes the connection and decides from the reason whether the kept window is doubtful.
func (s *Sink) lost(why error) error {
	// After an orderly end a reset says only that we wrote to a closed door; what was kept had been read. A window that
	// waits to be sent again went out on an earlier connection: of it, this one's end says nothing.
	orderly := errors.Is(why, errLeft) || errors.Is(s.conn.ended(), errLeft)
	if orderly && !s.resend {
		s.kept.clear()
	} else {
		s.resend = true
	}
	_ = s.conn.close()
	s.conn = nil
	return fmt.Errorf("send to %s: %w", s.addr, why)
}

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

// window keeps the newest messages, at most Window bytes of them and always the last.
type window struct {
	buf  []byte
	ends []int
}

func (w *window) add(messages []byte, ends []int) {
	base := len(w.buf)
	w.buf = append(w.buf, messages...)
	for _, e := range ends {
		w.ends = append(w.ends, base+e)
	}
	drop := 0
	for drop < len(w.ends)-1 && len(w.buf)-w.ends[drop] >= Window {
		drop++
	}
	// Cut in large steps only, so that a small message does not move a whole window.
	if drop == 0 || len(w.buf)-Window < Window/2 && len(w.buf) < 2*Window {
		return
	}
	cut := w.ends[drop-1]
	w.buf = append(w.buf[:0], w.buf[cut:]...)
	w.ends = append(w.ends[:0], w.ends[drop:]...)
	for i := range w.ends {
		w.ends[i] -= cut
	}
}

func (w *window) bytes() []byte { return w.buf }
func (w *window) records() int  { return len(w.ends) }
func (w *window) clear()        { w.buf, w.ends = w.buf[:0], w.ends[:0] }

// connection is one TCP connection on which the peer is not expected to say anything.
type connection struct {
	tcp   *net.TCPConn
	bytes net.Conn // tcp, or TLS over it
	proof string
	gone  chan struct{} // closed when reading ended
	why   error         // errLeft or the reset; set before gone is closed
}

// errLeft: the peer closed in good order, which Linux does only when all bytes had been read.
var errLeft = errors.New("peer closed the connection")

const (
	dialTimeout = 5 * time.Second
	// userTimeout ends a connection whose peer takes no byte and answers nothing; a peer that answers with a closed
	// window is slow, not gone, and is waited for.
	userTimeout = 60 * time.Second
)

func dial(ctx context.Context, addr string, conf *post.TLS) (*connection, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn := &connection{tcp: c.(*net.TCPConn), proof: c.LocalAddr().String() + " " + c.RemoteAddr().String(), gone: make(chan struct{})}
	_ = conn.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	conn.bytes = conn.tcp
	if conf != nil {
		if err := conn.secure(ctx, addr, *conf); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	go conn.listen()
	return conn, nil
}

// secure does the TLS handshake, so that a wrong certificate shows before anything is sent.
func (c *connection) secure(ctx context.Context, addr string, conf post.TLS) error {
	how, err := conf.Config()
	if err != nil {
		return err
	}
	how.ServerName, _, _ = net.SplitHostPort(addr)
	session := tls.Client(c.tcp, how)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := session.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.bytes = session
	return nil
}

// listen reads, and drops, what the peer says, to learn at once that it has gone and how.
func (c *connection) listen() {
	defer close(c.gone)
	var b [512]byte
	for {
		if _, err := c.bytes.Read(b[:]); err != nil {
			c.why = err
			if errors.Is(err, io.EOF) {
				c.why = errLeft
				// A write that met the reset first has taken the error with it (SO_ERROR is given once), and reading
				// then looks like an orderly end. The state still tells.
				if reset := c.standing(); reset != nil {
					c.why = reset
				}
			}
			return
		}
	}
}

// ended gives the reason when the peer has gone.
func (c *connection) ended() error {
	select {
	case <-c.gone:
		return c.why
	default:
		return nil
	}
}

// send writes b and waits until the peer's kernel has acknowledged all of it. It tells how many bytes were written.
// written is called before it waits.
func (c *connection) send(ctx context.Context, b []byte, written func(string)) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.bytes.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := c.bytes.Write(b)
	if err != nil {
		return n, errors.Join(context.Cause(ctx), err)
	}
	if written != nil {
		written(c.proof)
	}
	return n, c.drained(ctx)
}

// drained waits for SIOCOUTQ to be 0. The peer's answer takes a round trip, so the first looks are close together.
func (c *connection) drained(ctx context.Context) error {
	pause := 20 * time.Microsecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		queued := 0
		err := c.control(func(fd int) (err error) {
			queued, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			return err
		})
		if err != nil {
			return fmt.Errorf("ask for unsent bytes: %w", err)
		}
		if queued == 0 {
			// A reset also empties the queue. Only a connection that still stands proves that the bytes were taken.
			return c.standing()
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-c.gone:
			if !errors.Is(c.why, errLeft) {
				return c.why
			}
			// The peer only finished sending; what it does not take shows as a reset of our side.
			if err := c.standing(); err != nil {
				return err
			}
			<-timer.C
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(pause*2, 5*time.Millisecond)
	}
}

// standing gives the error of a connection that was reset or has timed out.
func (c *connection) standing() error {
	state, soerr := 0, 0
	err := c.control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		state = int(info.State)
		soerr, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err
	})
	switch {
	case err != nil:
		return err
	case soerr != 0:
		return unix.Errno(soerr)
	case state == tcpClose:
		return unix.ECONNRESET
	}
	return nil
}

const tcpClose = 7 // TCP_CLOSE in linux/tcp_states.h

func (c *connection) control(f func(fd int) error) error {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// close ends the connection and waits for its reader.
func (c *connection) close() error {
	err := c.bytes.Close()
	<-c.gone
	return err
}
