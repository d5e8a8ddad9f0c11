package api

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"
)

// SetWebConfig names the file that says which certificate the endpoint shows and whose passwords it takes, in the form
// that all of Prometheus' exporters have. Passwords and certificates are read again when they change; turning TLS on or
// off needs a restart. It is called before Run.
func (s *HTTP) SetWebConfig(path string) { s.web = path }

// CheckWebConfig reads such a file with the certificates that it names and says what is wrong, in one line. No path is no
// file, and well.
func CheckWebConfig(path string) error {
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("expected an absolute path, found %q", path)
	}
	if err := web.Validate(path); err != nil {
		text := err.Error()
		if strings.Contains(text, path) {
			return fmt.Errorf("%s", oneLine(text))
		}
		return fmt.Errorf("%s: %s", path, oneLine(text))
	}
	return nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// secured accepts connections as the file says.
func (s *HTTP) secured(srv *http.Server, l net.Listener) error {
	if s.web == "" {
		return srv.Serve(l)
	}
	return web.Serve(l, srv, &web.FlagConfig{WebConfigFile: &s.web}, s.log)
}
