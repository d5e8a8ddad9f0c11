package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// certificate writes a key and a certificate for 127.0.0.1 and gives who trusts it.
func certificate(t *testing.T, dir string, serial int64) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "fairlead test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"key.pem": {Type: "PRIVATE KEY", Bytes: secret}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func webConfig(t *testing.T, dir, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "web.yml")
	text := fmt.Sprintf("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {prometheus: %q}\n", hash)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// getTLS asks over TLS and gives the status.
func getTLS(t *testing.T, s *HTTP, trust *x509.CertPool, password string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr().String()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		req.SetBasicAuth("prometheus", password)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func TestScrapeNeedsTLSAndThePasswordThatTheFileSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trust := certificate(t, dir, 1)
	s := NewHTTP("127.0.0.1:0", quiet())
	s.SetWebConfig(webConfig(t, dir, "rope"))
	s.Handle("GET /metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	serving(t, s.Run)

	if status, body := getTLS(t, s, trust, "rope"); status != http.StatusOK || body != "page" {
		t.Errorf("with the password: %d %s", status, body)
	}
	for _, password := range []string{"", "chain"} {
		if status, body := getTLS(t, s, trust, password); status != http.StatusUnauthorized || strings.Contains(body, "page") {
			t.Errorf("with password %q: %d %s", password, status, body)
		}
	}
	if status, _ := getTLS(t, s, x509.NewCertPool(), "rope"); status != 0 {
		t.Errorf("somebody who does not trust the certificate got %d", status)
	}
	if resp, err := http.Get("http://" + s.Addr().String() + "/metrics"); err == nil {
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK || bytes.Contains(body, []byte("page")) {
			t.Errorf("plain HTTP: %d %s", resp.StatusCode, body)
		}
	}

	// Both are replaced while it runs.
	trust = certificate(t, dir, 2)
	webConfig(t, dir, "chain")
	if status, body := getTLS(t, s, trust, "chain"); status != http.StatusOK || body != "page" {
		t.Errorf("after the change: %d %s", status, body)
	}
	if status, _ := getTLS(t, s, trust, "rope"); status != http.StatusUnauthorized {
		t.Errorf("with the former password: %d", status)
	}
}

func TestBadWebConfigurationIsOneClearLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "web.yml")
	for text, want := range map[string]string{
		"tls_server_config: {cert_file: none.pem, key_file: none.pem}": "none.pem",
		"tls_server: {}":                        "tls_server",
		"basic_auth_users: {prometheus: plain}": "web.yml",
		"a: [":                                  "web.yml",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CheckWebConfig(path)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := CheckWebConfig(filepath.Join(dir, "absent.yml")); err == nil || strings.Count(err.Error(), "absent.yml") != 1 {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := CheckWebConfig("web.yml"); err == nil {
		t.Error("a relative path was taken")
	}
	if err := CheckWebConfig(""); err != nil {
		t.Error(err)
	}
}
