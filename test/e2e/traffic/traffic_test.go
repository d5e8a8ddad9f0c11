package main

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReceiverCountsWhatIsLostAndWhatComesTwice(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	got := make(chan *UDPReceived, 1)
	go func() {
		r, err := udpReceive(t.Context(), addr)
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Packet 0 of total 5 ends it; 3 is never sent and 4 comes twice.
	for {
		for _, p := range [][2]uint64{{1, 0}, {2, 0}, {4, 0}, {4, 0}, {5, 0}, {0, 5}} {
			b := binary.BigEndian.AppendUint64(nil, p[0])
			// Until the receiver listens, loopback answers "refused" to one of the next writes.
			if _, err := conn.Write(binary.BigEndian.AppendUint64(b, p[1])); err != nil {
				break
			}
		}
		select {
		case r := <-got:
			if r.Received != 4 || r.Lost != 1 || r.Repeated < 1 || r.Sent != 5 {
				t.Errorf("got %+v, want 4 of 5 received, 1 lost, at least 1 repeated", r)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestStreamIsCheckedRecordByRecord(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		spoil  func([]byte)
		broken bool
	}{
		{name: "whole", spoil: func([]byte) {}},
		{name: "one byte changed", spoil: func(b []byte) { b[len(b)-1]++ }, broken: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, recordSize)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					c.spoil(buf[:n])
					if _, err := conn.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			r, err := tcpSend(ctx, l.Addr().String(), 500)
			if (err != nil) != c.broken || (!c.broken && (r.Echoed == 0 || r.Echoed != r.Sent)) {
				t.Errorf("got %+v and %v, want broken: %v", r, err, c.broken)
			}
		})
	}
}

func TestLinesAreNumberedFromOne(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	path := filepath.Join(t.TempDir(), "log")
	r, err := lines(ctx, "demo a", 1000, []string{"out=" + path})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(b), "\n"); uint64(got) != r.Lines || !strings.HasPrefix(string(b), "demo a/out 1\ndemo a/out 2\n") {
		t.Errorf("%d lines were reported, the file has:\n%s", r.Lines, b)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}
