// Package fluent is the sink that speaks Fluentd's forward protocol (v1) to fluentd or fluent-bit, over TCP or TLS.
//
// Each batch is a chunk per tag in PackedForward mode, and the receiver's ack of the last chunk makes it acknowledged. A
// chunk whose ack never comes is sent again whole, and counted as possibly doubled.
// It owns one connection.
package fluent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// Sink sends to one receiver. See sink.Sink.
type Sink struct {
	addr  string // host:port
	tls   *post.TLS
	tag   string
	conn  net.Conn
	about sink.Cache[[]byte]
	body  []byte
	buf   []byte
}

// New makes a sink for host:port, with TLS unless conf is nil; it touches nothing. The records bear the tag.
func New(addr string, conf *post.TLS, tag string) *Sink {
	return &Sink{addr: addr, tls: conf, tag: tag}
}

// Class is Acknowledged: the receiver has answered with the chunk's id.
func (s *Sink) Class() sink.Class { return sink.Acknowledged }

// Pace gathers lines into chunks.
func (s *Sink) Pace() time.Duration { return 20 * time.Millisecond }

// Resume has nothing to undo.
func (s *Sink) Resume(context.Context, string) (string, error) { return "", nil }

const ackTime = 60 * time.Second

// Deliver sends one chunk and waits for its ack.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record, _ func(string)) (sink.Receipt, error) {
	if err := s.connect(ctx); err != nil {
		return sink.Receipt{}, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	chunk := base64.StdEncoding.EncodeToString(id[:])
	s.chunk(chunk, records)
	conn := s.conn
	_ = conn.SetDeadline(time.Now().Add(ackTime))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := s.conn.Write(s.buf)
	if err == nil {
		err = s.ack(chunk)
	}
	if err != nil {
		unsure := len(records)
		if n == 0 {
			unsure = 0
		}
		return sink.Receipt{Unsure: unsure}, errors.Join(fmt.Errorf("send chunk to %s: %w", s.addr, err), context.Cause(ctx), s.Close())
	}
	return sink.Receipt{Acked: len(records)}, nil
}

func (s *Sink) connect(ctx context.Context) (err error) {
	if s.conn != nil {
		return nil
	}
	d := &net.Dialer{Timeout: 5 * time.Second}
	if s.tls == nil {
		s.conn, err = d.DialContext(ctx, "tcp", s.addr)
	} else {
		var conf *tls.Config
		if conf, err = s.tls.Config(); err == nil {
			s.conn, err = (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", s.addr)
		}
	}
	if err != nil {
		s.conn = nil
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// chunk renders [tag, bin of entries, {"chunk": id, "size": n}].
func (s *Sink) chunk(id string, records []sink.Record) {
	s.body = s.body[:0]
	for i := range records {
		s.body = s.entry(s.body, &records[i])
	}
	b := appendStr(append(s.buf[:0], 0x93), s.tag)
	b = append(b, 0xc6) // bin 32
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.body)))
	b = append(b, s.body...)
	b = append(b, 0x82)
	b = appendStr(appendStr(b, "chunk"), id)
	b = append(appendStr(b, "size"), 0xce)
	s.buf = binary.BigEndian.AppendUint32(b, uint32(len(records)))
}

// entry renders [EventTime, map].
func (s *Sink) entry(b []byte, r *sink.Record) []byte {
	b = append(b, 0x92, 0xd7, 0x00) // fixext 8, type 0
	b = binary.BigEndian.AppendUint32(b, uint32(r.At/1e9))
	b = binary.BigEndian.AppendUint32(b, uint32(r.At%1e9))
	about := s.about.Get(r.Origin, func(o *sink.Origin) []byte { return about(o) })
	b = append(b, 0xde) // map 16
	pairs := binary.BigEndian.Uint16(about) + 2
	if len(r.Fields) > 0 {
		pairs++
	}
	b = binary.BigEndian.AppendUint16(b, pairs)
	b = appendStr(appendStr(b, "stream"), r.Std.String())
	b = append(b, about[2:]...)
	if len(r.Fields) > 0 {
		b = append(appendStr(b, "fields"), 0xde)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Fields)))
		for _, f := range r.Fields {
			b = appendStr(appendStr(b, f.Name), f.Value)
		}
	}
	return appendBytes(appendStr(b, "log"), r.Line)
}

// about renders the pairs of an origin after their number.
func about(o *sink.Origin) []byte {
	b := []byte{0, 0}
	fields, tags := o.Fields(), o.Tags()
	for _, f := range fields {
		b = appendStr(appendStr(b, f.Name), f.Value)
	}
	n := len(fields)
	if len(tags) > 0 {
		n++
		b = append(appendStr(b, "labels"), 0xde)
		b = binary.BigEndian.AppendUint16(b, uint16(len(tags)))
		for _, t := range tags {
			b = appendStr(appendStr(b, t.Name), t.Value)
		}
	}
	binary.BigEndian.PutUint16(b, uint16(n))
	return b
}

func appendStr(b []byte, s string) []byte {
	b = append(b, 0xdb) // str 32
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func appendBytes(b, s []byte) []byte {
	b = append(b, 0xdb) // str 32: receivers show it as text, and pass on what is no UTF-8
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// ack reads {"ack": id}.
func (s *Sink) ack(id string) error {
	var b [256]byte
	n := 0
	for {
		m, err := s.conn.Read(b[n:])
		if err != nil {
			return fmt.Errorf("wait for ack: %w", err)
		}
		n += m
		if got, ok := readAck(b[:n]); ok {
			if got != id {
				return fmt.Errorf("ack is for chunk %q, not %q", got, id)
			}
			return nil
		}
		if n == len(b) {
			return errors.New("answer is no ack")
		}
	}
}

// readAck reads a map of one pair of strings; ok is false while it is not whole.
func readAck(b []byte) (id string, ok bool) {
	if len(b) < 1 || b[0] != 0x81 {
		return "", false
	}
	key, rest, ok := readStr(b[1:])
	if !ok || key != "ack" {
		return "", false
	}
	id, _, ok = readStr(rest)
	return id, ok
}

func readStr(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 {
		return "", nil, false
	}
	var n, head int
	switch {
	case b[0]&0xe0 == 0xa0:
		n, head = int(b[0]&0x1f), 1
	case b[0] == 0xd9 && len(b) > 1:
		n, head = int(b[1]), 2
	case b[0] == 0xda && len(b) > 2:
		n, head = int(binary.BigEndian.Uint16(b[1:])), 3
	case b[0] == 0xdb && len(b) > 4:
		n, head = int(binary.BigEndian.Uint32(b[1:])), 5
	default:
		return "", nil, false
	}
	if len(b) < head+n {
		return "", nil, false
	}
	return string(b[head : head+n]), b[head+n:], true
}

// Close closes the connection.
func (s *Sink) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
