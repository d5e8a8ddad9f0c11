package hosttest

import (
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// Firewalld starts firewalld in this network namespace, which must be the test's own, and lets `firewall-cmd` find it.
func Firewalld(t *testing.T) *daemons.FirewalldDaemon {
	t.Helper()
	Require(t, "firewalld", "firewall-cmd", "dbus-daemon")
	d, err := daemons.Firewalld(t.Context(), daemons.Options{Dir: Dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", d.Bus)
	return d
}
