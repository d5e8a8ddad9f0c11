package syslog

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/logship/sink"
	"github.com/fairlead-dev/fairlead/logship/sink/post"
)

// certificate makes a self-signed one for 127.0.0.1 and a file with it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func TestOverTLSRecordsArriveAndAStrangerGetsNothing(t *testing.T) {
	t.Parallel()
	pair, ca := certificate(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan string, 2)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			got <- string(b)
			_ = c.Close()
		}
	}()
	records := []sink.Record{{Origin: &sink.Origin{Host: "h", Name: "n"}, Line: []byte("text")}}
	stranger := NewTLS(ln.Addr().String(), post.TLS{}, slog.New(slog.DiscardHandler))
	if r, err := stranger.Deliver(t.Context(), records, nil); err == nil || r.Acked > 0 {
		t.Errorf("a certificate that nobody vouches for was trusted: %+v", r)
	}
	if b := <-got; b != "" {
		t.Errorf("the stranger has %q", b)
	}
	s := NewTLS(ln.Addr().String(), post.TLS{CA: ca}, slog.New(slog.DiscardHandler))
	if r, err := s.Deliver(t.Context(), records, nil); err != nil || r.Acked != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	_ = s.Close()
	if b := <-got; b != `75 <14>1 1970-01-01T00:00:00.000000Z h n - file [fairlead@32473 name="n"] text` {
		t.Errorf("got %q", b)
	}
}

func TestOverTLSWhatThePeerMayNotHaveUsedIsSentAgainAndOnlyOnce(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", heldBytes)
	for name, test := range map[string]struct {
		leave func(*tls.Conn)
		again int // of the two messages
	}{
		"WithBytesUnread": {func(c *tls.Conn) { _ = c.Close() }, 2}, // close_notify, then a reset
		"AfterAllWasRead": {func(c *tls.Conn) { // close_notify, then a FIN; a library may still hold what was read
			readUntil(t, c, long)
			_ = c.Close()
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair, ca := certificate(t)
			ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			peers := make(chan *tls.Conn)
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if c.(*tls.Conn).HandshakeContext(t.Context()) == nil {
						peers <- c.(*tls.Conn)
					}
				}
			}()
			next := func() *tls.Conn {
				select {
				case c := <-peers:
					return c
				case <-time.After(20 * time.Second):
					t.Fatal("no connection")
					return nil
				}
			}
			s := NewTLS(ln.Addr().String(), post.TLS{CA: ca}, slog.New(slog.DiscardHandler))
			defer s.Close()
			deliver := func(line string) (resent int) {
				r, err := s.Deliver(t.Context(), []sink.Record{{Origin: &sink.Origin{Host: "h"}, Line: []byte(line)}}, nil)
				if err != nil || r.Acked != 1 {
					t.Fatalf("%+v, %v", r, err)
				}
				return r.Resent
			}
			deliver("short")
			deliver(long)
			test.leave(next())
			second := next()
			readUntil(t, second, long)
			s.mender.lock(t.Context())
			known := s.conn.gone
			s.mender.unlock()
			_ = second.Close() // in good order, with nothing new: not a third time
			<-known
			if n := deliver("new"); n != test.again {
				t.Errorf("%d messages were sent again, want %d", n, test.again)
			}
			if got := readUntil(t, next(), "new"); strings.Contains(got, long) {
				t.Error("sent a third time")
			}
		})
	}
}

// readUntil reads until the bytes end so.
func readUntil(t *testing.T, c *tls.Conn, end string) string {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var all []byte
	for b := make([]byte, 64<<10); !strings.HasSuffix(string(all), end); {
		n, err := c.Read(b)
		if err != nil {
			t.Errorf("read %d bytes, then %v", len(all), err)
			return ""
		}
		all = append(all, b[:n]...)
	}
	return string(all)
}
