//go:build kernel

package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func TestTheStepThatFailsInTheMiddleOfABatchIsNamedAndNothingIsLeft(t *testing.T) {
	c := hostNS(t)
	a, ns := attachment(2), containerNS(t)
	before := c.mustObserve(t)
	steps := plan.Attach(a, ns)
	inside := steps[1].(plan.Inside)
	at := len(inside.Steps) / 2
	twice := plan.AddAddr{Addr: plan.Addr{Dev: "eth0", Prefix: netip.PrefixFrom(a.Addr, 32)}} // was added before
	inside.Steps = append(append(append([]plan.Step{}, inside.Steps[:at]...), twice), inside.Steps[at:]...)
	steps[1] = inside
	err := c.Apply(t.Context(), steps)
	if want := fmt.Sprintf("in %s: ip addr add 10.42.1.2/32 dev eth0: file exists", ns.Path); err == nil || err.Error() != want || !errors.Is(err, unix.EEXIST) {
		t.Fatalf("got %v, want %s", err, want)
	}
	if got := c.mustObserve(t); len(got.Routes) > len(before.Routes) {
		t.Errorf("steps behind the batch were begun: routes %v", got.Routes)
	}
	c.mustApply(t, append(plan.Detach(a), plan.DeleteRetired{}))
	if got := c.mustObserve(t); len(got.Links) > 0 || len(got.Routes) > 0 || len(got.Neighs) > 0 {
		t.Errorf("left: %+v", got)
	}
	if out := sh(t, fmt.Sprintf("nsenter --net=/proc/%d/fd/%d ip -o addr show", pid(), ns.FD)); strings.Contains(out, "eth0") {
		t.Errorf("left in the container:\n%s", out)
	}
}

func TestRoutesOfOnePrefixAreToldApartByTheirMetrics(t *testing.T) {
	c := hostNS(t)
	dst := netip.MustParsePrefix("10.42.9.0/24")
	low := plan.Route{Dst: dst, Dev: "under", Via: netip.MustParseAddr("192.0.2.12"), OnLink: true}
	high := low
	high.Metric, high.MTU = 7, 1300
	c.mustApply(t, []plan.Step{plan.ReplaceRoute{Route: low}, plan.ReplaceRoute{Route: high}})
	high.MTU = 1200
	c.mustApply(t, []plan.Step{plan.ReplaceRoute{Route: high}})
	if got := c.mustObserve(t).Routes; len(got) != 2 || got[0] != low || got[1] != high {
		t.Fatalf("%v, want %v and %v", got, low, high)
	}
	c.mustApply(t, []plan.Step{plan.DeleteRoute{Route: low}})
	if got := c.mustObserve(t).Routes; len(got) != 1 || got[0] != high {
		t.Errorf("%v, want %v", got, high)
	}
}

func TestWhatIsAlreadyGoneFailsNoBatch(t *testing.T) {
	c := hostNS(t)
	gone := netip.MustParsePrefix("10.42.9.0/24")
	stays := plan.Route{Dst: netip.MustParsePrefix("10.42.8.0/24"), Unreachable: true}
	c.mustApply(t, []plan.Step{
		plan.DeleteRoute{Route: plan.Route{Dst: gone, Unreachable: true}},
		plan.DeleteNeigh{Neigh: plan.Neigh{Dev: "under", IP: netip.MustParseAddr("192.0.2.77")}},
		plan.DeleteAddr{Addr: plan.Addr{Dev: "under", Prefix: gone}},
		plan.DeleteRoute{Route: plan.Route{Dst: gone, Dev: "nowhere"}},
		plan.RetireLink{Name: "nowhere"},
		plan.ReplaceRoute{Route: stays},
		plan.DeleteAddr{Addr: plan.Addr{Dev: "nowhere", Prefix: gone}},
	})
	if got := c.mustObserve(t).Routes; len(got) != 1 || got[0] != stays {
		t.Errorf("routes %v, want %v", got, stays)
	}
}

func TestManyStepsGoInSeveralBatchesAndNothingIsBegunBehindOneThatFailed(t *testing.T) {
	c := hostNS(t)
	route := func(i int) plan.Step {
		return plan.ReplaceRoute{Route: plan.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(i >> 8), byte(i)}), 32), Unreachable: true}}
	}
	const n = 5*batchSize + 1
	var steps []plan.Step
	for i := range n {
		steps = append(steps, route(i))
	}
	c.mustApply(t, steps)
	if got := len(c.mustObserve(t).Routes); got != n {
		t.Fatalf("%d routes, want %d", got, n)
	}
	for i := range steps {
		steps[i] = plan.DeleteRoute(steps[i].(plan.ReplaceRoute))
	}
	c.mustApply(t, steps)
	steps = nil
	for i := range n {
		steps = append(steps, route(i))
	}
	bad := plan.ReplaceRoute{Route: plan.Route{Dst: netip.MustParsePrefix("10.43.0.0/16"), Dev: "under", Via: netip.MustParseAddr("198.51.100.1")}}
	steps[batchSize+3] = bad // no way to that gateway
	err := c.Apply(t.Context(), steps)
	if err == nil || !strings.HasPrefix(err.Error(), bad.String()+": ") || !errors.Is(err, unix.ENETUNREACH) {
		t.Fatalf("got %v, want %s: network is unreachable", err, bad)
	}
	if got := len(c.mustObserve(t).Routes); got != 2*batchSize-1 {
		t.Errorf("%d routes, want two batches without the bad one: %d", got, 2*batchSize-1)
	}
}

func TestAPortOfTheHostIsReachedByLoopback(t *testing.T) {
	c := hostNS(t)
	c.mustApply(t, plan.Steps(plan.Host{Networks: []plan.Network{blue()}}, c.mustObserve(t)))
	with, without := attachment(2), attachment(3)
	without.Ports = nil
	c.mustApply(t, plan.Attach(with, containerNS(t)))
	c.mustApply(t, plan.Attach(without, containerNS(t)))
	for link, want := range map[string]string{with.Link(): "1\n", without.Link(): "0\n"} {
		if got := sh(t, "cat /proc/sys/net/ipv4/conf/"+link+"/route_localnet"); got != want {
			t.Errorf("route_localnet of %s is %q, want %q", link, got, want)
		}
	}
}

func TestATransactionIsAllOrNothing(t *testing.T) {
	c := hostNS(t)
	c.mustApply(t, plan.Steps(plan.Host{Networks: []plan.Network{blue()}}, c.mustObserve(t)))
	before := c.mustObserve(t).Table.Elements
	good := plan.LinkMAC{Dev: "flcgood", MAC: plan.HostMAC}
	port := func(to string) plan.Forward {
		return plan.Forward{Host: netip.MustParseAddrPort("0.0.0.0:80"), Protocol: plan.TCP, To: netip.MustParseAddrPort(to)}
	}
	// One port cannot lead to two containers.
	err := c.Apply(t.Context(), []plan.Step{plan.Admit{Elements: plan.Elements{Links: []plan.LinkMAC{good}, Forwards: []plan.Forward{port("10.42.1.2:80"), port("10.42.1.3:80")}}}})
	if !errors.Is(err, unix.EEXIST) {
		t.Fatalf("got %v", err)
	}
	if got := c.mustObserve(t).Table.Elements; len(got.Links) != len(before.Links) || len(got.Forwards) != len(before.Forwards) {
		t.Errorf("a part was done: %+v", got)
	}
	// The socket goes on being used.
	c.mustApply(t, []plan.Step{plan.Admit{Elements: plan.Elements{Links: []plan.LinkMAC{good}}}})
	if got := c.mustObserve(t).Table.Elements.Links; len(got) != 1 || got[0] != good {
		t.Errorf("links %v", got)
	}
}
