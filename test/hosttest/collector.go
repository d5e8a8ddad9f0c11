package hosttest

import (
	"os"
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
)

// collectorEnv names the OpenTelemetry Collector that `make test-peers` has built. Building it takes minutes, so nobody
// else has to have it, not even CI=true.
const collectorEnv = "FAIRLEAD_COLLECTOR"

// Collector starts an OpenTelemetry Collector on free ports of loopback.
func Collector(t testing.TB) *daemons.CollectorDaemon {
	t.Helper()
	program := os.Getenv(collectorEnv)
	if program == "" {
		t.Skip("no OpenTelemetry Collector; make test-peers builds one and runs this")
	}
	Require(t, program)
	d, err := daemons.Collector(t.Context(), daemons.Options{Dir: Dir(t)}, program,
		daemons.CollectorPorts{OTLP: freePort(t), Loki: freePort(t), Fluent: freePort(t)})
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, d.Stop)
	return d
}
