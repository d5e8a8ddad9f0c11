package hosttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// syslogNGEnv names the directory into which `make test-peers` has unpacked Debian's syslog-ng. It cannot be installed
// beside rsyslog, so nobody else has to have it, not even CI=true.
const syslogNGEnv = "FAIRLEAD_SYSLOG_NG"

// SyslogNG starts a syslog-ng on a free port of loopback.
func SyslogNG(t testing.TB, kind daemons.SyslogNGInput) *daemons.SyslogNGDaemon {
	t.Helper()
	root := os.Getenv(syslogNGEnv)
	if root == "" {
		t.Skip("no syslog-ng; make test-peers unpacks one and runs this")
	}
	Require(t, filepath.Join(root, "usr/sbin/syslog-ng"))
	d, err := daemons.SyslogNG(t.Context(), daemons.Options{Dir: Dir(t), Address: freePort(t)}, root, kind)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	return d
}
