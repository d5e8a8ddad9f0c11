package hosttest

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// Rsyslog starts an rsyslogd on a free port of loopback.
func Rsyslog(t testing.TB) *daemons.RsyslogDaemon {
	t.Helper()
	return RsyslogWith(t, daemons.RsyslogInput{})
}

// RsyslogWith is Rsyslog with another input, whose Debian package must be there.
func RsyslogWith(t testing.TB, kind daemons.RsyslogInput) *daemons.RsyslogDaemon {
	t.Helper()
	Require(t, "rsyslogd")
	opts := daemons.Options{Dir: Dir(t)}
	if kind.RELP {
		module(t, "imrelp", "rsyslog-relp")
		opts.Address = freePort(t)
	}
	if kind.Cert != "" && !kind.RELP {
		module(t, "lmnsd_ossl", "rsyslog-openssl")
	}
	d, err := daemons.RsyslogWith(t.Context(), opts, kind)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	return d
}

// module skips, or fails under CI=true, when rsyslogd lacks one of its modules.
func module(t testing.TB, name, deb string) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib*/*/rsyslog/" + name + ".so")
	more, _ := filepath.Glob("/usr/lib*/rsyslog/" + name + ".so")
	if len(found)+len(more) > 0 {
		return
	}
	lack(t, "rsyslogd has no "+name+" (apt-get install "+deb+")")
}

// freePort gives an address that was free a moment ago, for a daemon that cannot choose one.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
