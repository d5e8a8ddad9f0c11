package hosttest

import (
	"context"
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// Etcd starts an etcd of its own that ends with the test. more are further flags, for TLS.
func Etcd(t testing.TB, more ...string) *daemons.EtcdDaemon {
	t.Helper()
	Root(t)
	Require(t, "etcd", "etcdctl")
	d, err := daemons.Etcd(context.Background(), daemons.Options{Dir: Dir(t), Address: freePort(t)}, more...)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	return d
}
