package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"golang.org/x/sys/unix"
)

// connection is one TCP connection on which the peer is not expected to say anything.
type connection struct {
	tcp   *net.TCPConn
	room  atomic.Uint32 // most bytes that the peer's kernel has offered to hold unread, its window
	bytes net.Conn      // tcp, or TLS over it
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
	// notifyTimeout is how long TCP's end may come after that of TLS.
	notifyTimeout = 5 * time.Second
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
			if c.bytes != net.Conn(c.tcp) {
				err = c.underTLS(err)
			}
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

// underTLS reads on below a TLS session that has ended. Its close_notify says only that the peer sends no more; whether
// the peer has read everything is told by what follows on TCP: its FIN, or the reset of a closed socket with bytes
// unread. (rsyslogd ended so with 10,000 messages unread once in fifteen stops.) A peer that sends neither leaves doubt.
func (c *connection) underTLS(end error) error {
	_ = c.tcp.SetReadDeadline(time.Now().Add(notifyTimeout))
	if _, err := io.Copy(io.Discard, c.tcp); err != nil {
		return err
	}
	if errors.Is(end, io.EOF) || errors.Is(end, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return end
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
		c.room.Store(max(c.room.Load(), info.Snd_wnd))
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
