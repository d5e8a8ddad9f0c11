package syslog

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/sinktest"
)

func TestSyslogKeepsTheContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		r := sinktest.Listen(t, "")
		all := []*sinktest.Receiver{r}
		return sinktest.Harness{
			New: func() sink.Sink { return New(r.Addr, slog.New(slog.DiscardHandler)) },
			Received: func() (out []string) {
				for _, r := range all {
					out = append(out, r.Messages()...)
				}
				return out
			},
			Down: func() { all[len(all)-1].Stop() },
			Up:   func() { all = append(all, sinktest.Listen(t, r.Addr)) },
			Set:  func(m sinktest.Mode) { all[len(all)-1].Set(m) },
		}
	})
}

func TestAWrittenBatchIsConfirmedByTheKernelAfterTheConnectionHasEnded(t *testing.T) {
	t.Parallel()
	r := sinktest.Listen(t, "")
	s := New(r.Addr, slog.New(slog.DiscardHandler))
	proof := ""
	if _, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte("x")}}, func(p string) { proof = p }); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	next := New(r.Addr, slog.New(slog.DiscardHandler))
	if !next.Confirm(t.Context(), proof) {
		t.Errorf("%q is not confirmed", proof)
	}
	if next.Confirm(t.Context(), "127.0.0.1:1 "+r.Addr) || next.Confirm(t.Context(), "nonsense") {
		t.Error("a connection that never was is confirmed")
	}
}

func TestWhatOnlyOurKernelHasIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	ln, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := New(ln.Addr().String(), slog.New(slog.DiscardHandler))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	proof := ""
	r, err := s.Deliver(ctx, []sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: make([]byte, 40_000)}}, func(p string) { proof = p })
	if proof == "" {
		t.Skip("this kernel's send buffer takes less than 40,000 bytes")
	}
	if err == nil || r.Acked != 0 || r.Unsure != 1 {
		t.Errorf("the peer's window is full: %+v, %v", r, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if s.Confirm(ctx, proof) {
		t.Error("bytes that are still in our kernel were confirmed")
	}
}

func TestAResetConnectionConfirmsNothing(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := New(ln.Addr().String(), slog.New(slog.DiscardHandler))
	proof := ""
	_, err = s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte("x")}}, func(p string) { proof = p })
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close() // unread bytes: a reset
	_ = s.Close()
	if s.Confirm(t.Context(), proof) {
		t.Error("what nobody read was confirmed")
	}
}

func TestHeadersAreValidWhateverAContainerIsCalled(t *testing.T) {
	t.Parallel()
	var f format
	o := &sink.Origin{Host: "web 1", Name: strings.Repeat("ä", 60), Labels: map[string]string{"b": "2", "a": "\xff\"]"}}
	got := string(f.append(nil, &sink.Record{Origin: o, Line: []byte("text")}))
	head := "<14>1 1970-01-01T00:00:00.000000Z web_1 " + strings.Repeat("_", 48) + " - file [fairlead@32473 name=\"" + o.Name +
		"\" label=\"a=\uFFFD\\\"\\]\" label=\"b=2\"] text"
	if _, body, _ := strings.Cut(got, " "); body != head {
		t.Errorf("\n got %s\nwant %s", body, head)
	}
}

func TestADatagramIsOneMessageAndWhatDoesNotFitIsRejected(t *testing.T) {
	t.Parallel()
	ln, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := NewUDP(ln.LocalAddr().String())
	defer s.Close()
	o := &sink.Origin{Host: "h", Name: "n"}
	r, err := s.Deliver(t.Context(), []sink.Record{{Origin: o, Line: []byte("one")}, {Origin: o, Line: make([]byte, 70_000)}, {Origin: o, Line: []byte("two")}}, nil)
	if err != nil || r.Acked != 3 || len(r.Rejected) != 1 || r.Rejected[0].Index != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	b := make([]byte, 1000)
	for _, want := range []string{"one", "two"} {
		n, _, err := ln.ReadFrom(b)
		if got := string(b[:n]); err != nil || got != `<14>1 1970-01-01T00:00:00.000000Z h n - file [fairlead@32473 name="n"] `+want {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestAfterAResetTheWindowIsSentAgainWithoutANewRecord(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := New(ln.Addr().String(), slog.New(slog.DiscardHandler))
	defer s.Close()
	o := &sink.Origin{Host: "h", Name: "n"}
	if r, err := s.Deliver(t.Context(), []sink.Record{{Origin: o, Line: []byte("last words")}}, nil); err != nil || r.Acked != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	first, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close() // unread bytes: a reset
	second, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_ = second.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 1000)
	n, err := second.Read(b)
	if err != nil || !strings.HasSuffix(string(b[:n]), "last words") {
		t.Fatalf("got %q, %v", b[:n], err)
	}
	if r, err := s.Deliver(t.Context(), []sink.Record{{Origin: o, Line: []byte("more")}}, nil); err != nil || r.Acked != 1 || r.Resent != 1 {
		t.Errorf("the next receipt is %+v, %v", r, err)
	}
}

func TestClosingEndsTheMendingOfAPeerThatStaysAway(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(ln.Addr().String(), slog.New(slog.DiscardHandler))
	if r, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte("x")}}, nil); err != nil || r.Acked != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.mender.lock(t.Context())
	conn := s.conn
	s.mender.unlock()
	_, _ = ln.Close(), c.Close()
	<-conn.gone
	if err := s.Close(); err != nil { // returns when the mending has ended
		t.Error(err)
	}
}
