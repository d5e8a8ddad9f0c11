//go:build kernel

package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestWatchTellsWhatOthersReplaceAndNotWhatWeReplaceOurselves(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	hosttest.Require(t, "ip", "bridge")
	sh := func(script string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	c, err := Open(host.DefaultRoot())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sh("ip link add under type veth peer name far; ip link set under up; ip link set far up; ip link add fl-vx9 type vxlan id 9 dstport 4790 nolearning; ip link set fl-vx9 up")
	m := plan.MAC{2, 0, 0, 0, 0, 5}
	ours := func(route, neigh string) {
		t.Helper()
		if err := c.Apply(t.Context(), []plan.Step{
			plan.ReplaceRoute{Route: plan.Route{Dst: netip.MustParsePrefix("10.9.0.0/24"), Dev: route}},
			plan.ReplaceRoute{Route: plan.Route{Dst: netip.MustParsePrefix("10.9.1.1/32"), Dev: route}},
			plan.ReplaceNeigh{Neigh: plan.Neigh{Dev: "under", IP: netip.MustParseAddr("10.9.0.1"), MAC: macOf(t, neigh)}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	ours("under", m.String())
	sh("bridge fdb add " + m.String() + " dev fl-vx9 dst 192.0.2.50 self; ip route add 10.8.0.0/24 dev under proto bgp")

	ctx, cancel := context.WithCancel(t.Context())
	seen, began, ended := make(chan string, 100), make(chan struct{}, 2), make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, func(ch Change) {
			switch {
			case ch.Lost:
				began <- struct{}{}
			case ch.Route.IsValid():
				seen <- ch.Route.String()
			case ch.Neigh == netip.MustParseAddr("10.9.0.1"), ch.Neigh == m.LinkLocal():
				seen <- ch.Neigh.String()
			}
		})
	}()
	<-began
	<-began
	ours("far", "02:00:00:00:00:06")
	for _, by := range []struct{ what, want string }{
		{"ip route replace 10.9.0.0/24 dev under", "10.9.0.0/24"},
		{"ip route replace unreachable 10.9.1.1 proto bgp", "10.9.1.1/32"},
		// A daemon's many routes are not looked after, so what is seen next is the neighbour.
		{"ip route replace 10.8.0.0/24 dev far proto bgp; ip neigh replace 10.9.0.1 lladdr 02:00:00:00:00:07 dev under", "10.9.0.1"},
		{fmt.Sprintf("bridge fdb replace %s dev fl-vx9 dst 192.0.2.77 self", m), m.LinkLocal().String()},
	} {
		sh(by.what)
		select {
		case got := <-seen:
			if got != by.want {
				t.Errorf("after %q: %s, want %s", by.what, got, by.want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("after %q nothing is told", by.what)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func macOf(t *testing.T, text string) (m plan.MAC) {
	t.Helper()
	if err := m.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return m
}
