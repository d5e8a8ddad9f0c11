package hosttest

import (
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// Rsyslog starts an rsyslogd on a free port of loopback.
func Rsyslog(t testing.TB) *daemons.RsyslogDaemon {
	t.Helper()
	Require(t, "rsyslogd")
	d, err := daemons.Rsyslog(t.Context(), daemons.Options{Dir: Dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	return d
}
