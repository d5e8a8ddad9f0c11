package fluent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

// receiver reads chunks, keeps their lines and answers with acks.
type receiver struct {
	mu     sync.Mutex
	change *sync.Cond
	ln     net.Listener
	conns  map[net.Conn]bool
	lines  []string
	mode   sinktest.Mode
	down   bool
	wg     sync.WaitGroup
}

func (r *receiver) up(t *testing.T) {
	addr := "127.0.0.1:0"
	if r.ln != nil {
		addr = r.ln.Addr().String()
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.ln, r.down = ln, false
	r.mu.Unlock()
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			r.wg.Go(func() {
				defer c.Close()
				for r.chunk(t, c) == nil {
				}
			})
		}
	})
}

func (r *receiver) stop() {
	_ = r.ln.Close()
	r.mu.Lock()
	r.down = true
	for c := range r.conns {
		_ = c.Close()
	}
	r.change.Broadcast()
	r.mu.Unlock()
	r.wg.Wait()
}

// chunk reads one message.
func (r *receiver) chunk(t *testing.T, c net.Conn) error {
	r.mu.Lock()
	for r.mode == sinktest.Stuck && !r.down {
		r.change.Wait()
	}
	mode := r.mode
	r.mu.Unlock()
	if mode == sinktest.Rude {
		_, _ = c.Read(make([]byte, 1))
		return errors.New("rude")
	}
	in := bufio.NewReader(c)
	v, err := value(in)
	if err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
			t.Logf("receiver: %v", err)
		}
		return err
	}
	msg := v.([]any)
	opts := msg[2].(map[string]any)
	var lines []string
	for body := bufio.NewReader(bytesReader(msg[1].([]byte))); ; {
		e, err := value(body)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("entry: %v", err)
			return err
		}
		record := e.([]any)[1].(map[string]any)
		if record["host"] != "web1" || record["labels"].(map[string]any)["tier"] != "front" || msg[0] != "tag" {
			t.Errorf("record %v", record)
		}
		lines = append(lines, record["log"].(string))
	}
	if int(opts["size"].(uint64)) != len(lines) {
		t.Errorf("size %v of %d", opts["size"], len(lines))
	}
	r.mu.Lock()
	r.lines = append(r.lines, lines...)
	r.mu.Unlock()
	id := opts["chunk"].(string)
	_, err = c.Write(append([]byte{0x81, 0xa3, 'a', 'c', 'k', 0xd9, byte(len(id))}, id...))
	return err
}

type reader struct{ b []byte }

func bytesReader(b []byte) io.Reader { return &reader{b} }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// value reads the MessagePack that the test needs.
func value(in *bufio.Reader) (any, error) {
	c, err := in.ReadByte()
	if err != nil {
		return nil, err
	}
	num := func(n int) int {
		b := make([]byte, 8)
		if _, e := io.ReadFull(in, b[8-n:]); e != nil {
			err = e
		}
		return int(binary.BigEndian.Uint64(b))
	}
	raw := func(n int) []byte {
		b := make([]byte, n)
		if _, e := io.ReadFull(in, b); e != nil {
			err = e
		}
		return b
	}
	pairs := func(n int) (any, error) {
		m := map[string]any{}
		for range n {
			k, e := value(in)
			v, e2 := value(in)
			if e = errors.Join(err, e, e2); e != nil {
				return nil, e
			}
			m[k.(string)] = v
		}
		return m, nil
	}
	switch {
	case c&0xf0 == 0x90:
		var out []any
		for range c & 0x0f {
			v, e := value(in)
			if e != nil {
				return nil, e
			}
			out = append(out, v)
		}
		return out, nil
	case c&0xf0 == 0x80:
		return pairs(int(c & 0x0f))
	case c == 0xde:
		return pairs(num(2))
	case c == 0xdb:
		return string(raw(num(4))), err
	case c == 0xc6:
		return raw(num(4)), err
	case c == 0xce:
		return uint64(num(4)), err
	case c == 0xd7:
		return raw(9)[1:], err
	}
	return nil, fmt.Errorf("unexpected byte %x", c)
}

func TestFluentKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := &receiver{conns: map[net.Conn]bool{}}
		r.change = sync.NewCond(&r.mu)
		r.up(t)
		t.Cleanup(r.stop)
		return sinktest.Harness{
			New: func() sink.Sink { return New(r.ln.Addr().String(), nil, "tag") },
			Received: func() []string {
				r.mu.Lock()
				defer r.mu.Unlock()
				return append([]string(nil), r.lines...)
			},
			Down: r.stop,
			Up:   func() { r.up(t) },
			Set: func(m sinktest.Mode) {
				r.mu.Lock()
				r.mode = m
				r.mu.Unlock()
				r.change.Broadcast()
			},
		}
	})
}

func TestAnAckIsReadInPiecesAndOnlyItsOwnCounts(t *testing.T) {
	t.Parallel()
	whole := []byte("\x81\xa3ack\xa3abc")
	for n := range whole {
		if _, ok := readAck(whole[:n]); ok {
			t.Errorf("%d bytes were an ack", n)
		}
	}
	if id, ok := readAck(whole); !ok || id != "abc" {
		t.Errorf("got %q, %v", id, ok)
	}
}
