// Package relp is the sink that speaks RELP, rsyslog's reliable event logging protocol (version 0 of the protocol, as
// imrelp speaks it), over TCP or TLS. The messages are those of the syslog sink, RFC 5424.
//
//	us    1 open 67 relp_version=0\nrelp_software=...\ncommands=syslog      peer  1 rsp 92 200 OK\nrelp_version=0\n...
//	us    2 syslog 75 <14>1 2026-...                                        peer  2 rsp 6 200 OK
//	peer  0 serverclose 0
//
// Each message is a command of its own, and the peer's answer to it makes it acknowledged. Up to a window of commands
// wait for their answers. When the connection ends, the commands without an answer are those that the caller sends
// again, and that may have arrived.
// It owns one connection.
package relp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
	"github.com/fairlead-dev/fairlead/logship/sink/syslog"
)

// Sink sends to one receiver. See sink.Sink.
type Sink struct {
	addr   string // host:port
	tls    *post.TLS
	format syslog.Format
	conn   *session
	buf    []byte
	// refusals counts the Delivers in a row of which everything was refused.
	refusals int
}

// New makes a sink for host:port, with TLS unless conf is nil; it touches nothing.
func New(addr string, conf *post.TLS) *Sink { return &Sink{addr: addr, tls: conf} }

// Class is Acknowledged: the receiver has answered each message.
func (s *Sink) Class() sink.Class { return sink.Acknowledged }

// Pace lets a busy stream gather into one packet what comes within it.
func (s *Sink) Pace() time.Duration { return 3 * time.Millisecond }

// Resume has nothing to undo.
func (s *Sink) Resume(context.Context, string) (string, error) { return "", nil }

const (
	window      = 1024 // commands without an answer; librelp's client keeps 128
	answerTime  = 60 * time.Second
	dialTimeout = 5 * time.Second
	// lastWord is the refusal that is final. The caller's back-off makes that about twelve seconds.
	lastWord = 10
)

// Deliver sends each record as a command and waits for all the answers.
//
// A message that is refused while others of the same Deliver are taken is at fault itself, and is rejected. When nothing
// is taken it is the receiver that cannot, and the caller repeats them all; but not for ever, since one message may be
// alone: after lastWord refusals the first is rejected, and the others have as many tries again.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record, _ func(string)) (sink.Receipt, error) {
	if err := s.connect(ctx); err != nil {
		return sink.Receipt{}, err
	}
	conn := s.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.bytes.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t := tally{answers: make([]answer, len(records))}
	err := s.exchange(ctx, &t, records)
	if err != nil {
		// Half a command may be on its way, so no word of goodbye.
		s.conn = nil
		err = errors.Join(fmt.Errorf("send to %s: %w", s.addr, err), context.Cause(ctx), conn.bytes.Close())
	}
	if t.taken > 0 {
		s.refusals = 0
	} else if err == nil && len(records) > 0 {
		if s.refusals++; s.refusals == lastWord {
			s.refusals, t.final = 0, true
		}
	}
	r := t.receipt()
	if err == nil && r.Acked < len(records) {
		err = fmt.Errorf("send to %s: %w", s.addr, t.refusal(r.Acked))
	}
	return r, err
}

// exchange fills the window, reads answers, and fills again.
func (s *Sink) exchange(ctx context.Context, t *tally, records []sink.Record) error {
	first := s.conn.next
	for open := 0; t.settled < len(records); {
		s.conn.patience()
		if ctx.Err() != nil { // looked at after every new deadline, which may have replaced the one that ends us
			return context.Cause(ctx)
		}
		for ; t.sent < len(records) && open < window; open++ {
			s.buf = s.format.Append(s.buf[:0], &records[t.sent])
			// What was handed over may have arrived, also when writing fails half-way.
			t.sent++
			if err := s.conn.command("syslog", s.buf); err != nil {
				return err
			}
		}
		if err := s.conn.flush(); err != nil {
			return err
		}
		for more := true; more; more = open > 0 && s.conn.in.Buffered() > 0 {
			n, text, err := s.conn.answer()
			if err != nil {
				return err
			}
			at := distance(first, n)
			if at >= t.sent || t.answers[at].given {
				return fmt.Errorf("answer to command %d, which waits for none", n)
			}
			t.settle(at, text)
			open--
		}
	}
	return nil
}

func (s *Sink) connect(ctx context.Context) error {
	if s.conn != nil {
		if !s.conn.left() {
			return nil
		}
		_ = s.Close() // the peer left while nothing was under way: a fresh connection is tried at once
	}
	d := &net.Dialer{Timeout: dialTimeout}
	var c net.Conn
	var err error
	if s.tls == nil {
		c, err = d.DialContext(ctx, "tcp", s.addr)
	} else {
		var conf *tls.Config
		if conf, err = s.tls.Config(); err == nil {
			c, err = (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", s.addr)
		}
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	conn := newSession(c)
	_ = c.SetDeadline(time.Now().Add(answerTime))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.open(); err != nil {
		return errors.Join(fmt.Errorf("open session with %s: %w", s.addr, err), context.Cause(ctx), c.Close())
	}
	s.conn = conn
	return nil
}

// Close ends the session in good order where the peer lets us.
func (s *Sink) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.end()
	s.conn = nil
	return err
}

// answer is what the peer said to one command.
type answer struct {
	given   bool
	refused string // why; empty for a message that was taken
}

// tally is how far one Deliver has come.
type tally struct {
	answers       []answer
	sent, settled int
	taken         int
	final         bool // the first message is at fault although nothing was taken
}

func (t *tally) settle(at int, text string) {
	t.settled++
	a := &t.answers[at]
	a.given = true
	if strings.HasPrefix(text, "200") {
		t.taken++
		return
	}
	line, _, _ := strings.Cut(text, "\n")
	a.refused = "answer " + fmt.Sprintf("%.200q", line)
}

// receipt counts what is settled from the first record on. Of those behind a gap, all that were sent are sent again.
func (t *tally) receipt() (r sink.Receipt) {
	for ; r.Acked < len(t.answers); r.Acked++ {
		a := t.answers[r.Acked]
		if !a.given || a.refused != "" && t.taken == 0 && (!t.final || r.Acked > 0) {
			break
		}
		if a.refused != "" {
			r.Rejected = append(r.Rejected, sink.Rejection{Index: r.Acked, Reason: a.refused})
		}
	}
	for i := r.Acked; i < t.sent; i++ {
		if t.answers[i].refused == "" {
			r.Unsure = i + 1 - r.Acked
		}
	}
	return r
}

func (t *tally) refusal(at int) error { return errors.New(t.answers[at].refused) }
