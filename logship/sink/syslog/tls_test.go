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
