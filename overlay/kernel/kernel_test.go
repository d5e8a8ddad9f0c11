//go:build kernel

package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netns"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// hostNS moves the test's thread into a new network namespace, which ends with the thread.
func hostNS(t *testing.T) *Conn {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread, and the namespace with it, ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	sh(t, "ip link set lo up; ip link add under type veth peer name far; ip addr add 192.0.2.11/24 dev under; ip link set under up; ip link set far up")
	c, err := Open(host.DefaultRoot())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// containerNS makes a namespace for a container and comes back to the host's.
func containerNS(t *testing.T) plan.Namespace {
	t.Helper()
	back, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netns.Set(back); err != nil {
		t.Fatal(err)
	}
	return plan.Namespace{FD: int(ns), Path: fmt.Sprintf("/proc/self/fd/%d", int(ns))}
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func blue() plan.Network {
	return plan.Network{
		Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/48"), VNI: 42, Port: 4789, MTU: 1450,
		Node: netip.MustParseAddr("10.42.1.1"), Node6: netip.MustParseAddr("fd42:0:0:1::1"),
		Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("fd42:0:0:1::/64")},
		Open:   true, Allow: []string{"green"},
		Underlay: plan.VTEP{Addr: netip.MustParseAddr("192.0.2.11"), MAC: plan.VTEPMAC("web1", 42)},
		Peers: []plan.Peer{
			{Name: "web2", VTEP: plan.VTEP{Addr: netip.MustParseAddr("192.0.2.12"), MAC: plan.VTEPMAC("web2", 42)}, Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("fd42:0:0:2::/64")}},
			{Name: "web3", VTEP: plan.VTEP{Addr: netip.MustParseAddr("192.0.2.13"), MAC: plan.VTEPMAC("web3", 42)}, Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.3.0/24"), netip.MustParsePrefix("10.42.4.0/24"), netip.MustParsePrefix("10.42.240.5/32")}, Lost: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("fd42:0:0:2::7/128")}},
		},
	}
}

func green() plan.Network {
	return plan.Network{Name: "green", CIDR: netip.MustParsePrefix("10.43.0.0/16"), VNI: 43, Port: 4789, MTU: 1450, Blocks: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}}
}

func attachment(i int) plan.Attachment {
	return plan.Attachment{
		Key: plan.Key{Owner: fmt.Sprintf("c%d", i), IfName: "eth0"}, Network: "blue", Addr: netip.AddrFrom4([4]byte{10, 42, 1, byte(i)}),
		Node: netip.MustParseAddr("10.42.1.1"), MTU: 1450, Default: true, Reach: netip.MustParsePrefix("10.42.0.0/16"), NSID: "4:1",
		Addr6: netip.AddrFrom16([16]byte{0xfd, 0x42, 7: 1, 15: byte(i)}), Node6: netip.MustParseAddr("fd42:0:0:1::1"), Default6: true, Reach6: netip.MustParsePrefix("fd42::/48"),
		Ports: []plan.Port{
			{HostPort: 8000 + uint16(i), ContainerPort: 80, Protocol: plan.TCP},
			{HostIP: netip.MustParseAddr("192.0.2.11"), HostPort: 8000 + uint16(i), ContainerPort: 53, Protocol: plan.UDP},
		},
	}
}

func (c *Conn) mustApply(t *testing.T, steps []plan.Step) {
	t.Helper()
	if err := c.Apply(t.Context(), steps); err != nil {
		t.Fatal(err)
	}
}

func (c *Conn) mustObserve(t *testing.T) plan.Observed {
	t.Helper()
	o, err := c.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestStepsLeadToTheWantedStateAndThenThereIsNothingLeftToDo(t *testing.T) {
	c := hostNS(t)
	want := plan.Host{Networks: []plan.Network{blue(), green()}}
	first := plan.Steps(want, c.mustObserve(t))
	if len(first) < 10 {
		t.Fatalf("on an empty host only:\n%s", plan.Text(first))
	}
	c.mustApply(t, first)
	if again := plan.Steps(want, c.mustObserve(t)); len(again) > 0 {
		t.Fatalf("still to do:\n%s\nobserved %+v", plan.Text(again), c.mustObserve(t))
	}
	shown := sh(t, "ip -d link show fl-vx42; ip route; ip neigh show dev fl-vx42; bridge fdb show dev fl-vx42; nft list table inet fairlead")
	for _, line := range []string{
		"vxlan id 42 local 192.0.2.11",
		"10.42.3.0/24 via 192.0.2.13 dev fl-vx42 proto 94 src 10.42.1.1 onlink",
		"unreachable 10.42.0.0/16 proto 94",
		"192.0.2.12 lladdr " + plan.VTEPMAC("web2", 42).String() + " PERMANENT",
		plan.VTEPMAC("web3", 42).String() + " dst 192.0.2.13 self permanent",
		"fib saddr . iif oif missing",
		"ip saddr @overlay4 ip daddr != @overlay4 masquerade",
	} {
		if !strings.Contains(shown, line) {
			t.Errorf("no %q in:\n%s", line, shown)
		}
	}
}

func TestAttachAndRepairEndInTheSameState(t *testing.T) {
	c := hostNS(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	want := plan.Host{Networks: []plan.Network{blue()}}
	c.mustApply(t, plan.Steps(want, c.mustObserve(t)))
	for i := 2; i < 8; i++ {
		a := attachment(i)
		c.mustApply(t, plan.Attach(a, containerNS(t)))
		want.Attachments = append(want.Attachments, a)
	}
	whole := c.mustObserve(t)
	if steps := plan.Steps(want, whole); len(steps) > 0 {
		t.Fatalf("after Attach, repair would still do:\n%s", plan.Text(steps))
	}
	for range 12 {
		damage(t, c, random, whole)
		c.mustApply(t, plan.Steps(want, c.mustObserve(t)))
		same := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.IgnoreFields(plan.Link{}, "Index"), cmpopts.SortSlices(func(a, b any) bool { return fmt.Sprint(a) < fmt.Sprint(b) })}
		if diff := cmp.Diff(whole, c.mustObserve(t), same); diff != "" {
			t.Fatalf("repair did not restore the state:\n%s", diff)
		}
	}
	for _, a := range want.Attachments {
		c.mustApply(t, plan.Detach(a))
	}
	c.mustApply(t, []plan.Step{plan.DeleteRetired{}})
	want.Attachments = nil
	if steps := plan.Steps(want, c.mustObserve(t)); len(steps) > 0 {
		t.Fatalf("after Detach, repair would still do:\n%s", plan.Text(steps))
	}
}

// damage removes one to three random objects of ours, as a careless person would.
func damage(t *testing.T, c *Conn, random *rand.Rand, whole plan.Observed) {
	t.Helper()
	for range 1 + random.IntN(3) {
		var s plan.Step
		switch random.IntN(9) {
		case 0:
			s = plan.DeleteRoute{Route: whole.Routes[random.IntN(len(whole.Routes))]}
		case 1:
			s = plan.DeleteNeigh{Neigh: whole.Neighs[random.IntN(len(whole.Neighs))]}
		case 2:
			s = plan.DeleteFDB{FDB: whole.FDB[random.IntN(len(whole.FDB))]}
		case 3:
			s = plan.SetSysctl{Key: "net.ipv4.ip_forward", Value: "0"}
		case 4:
			s = plan.DeleteLink{Name: "fl-vx42"}
		case 5:
			sh(t, "nft flush chain inet fairlead antispoof")
			continue
		case 6:
			s = plan.ReplaceRoute{Route: plan.Route{Dst: netip.MustParsePrefix("10.42.77.0/24"), Unreachable: true}}
		case 7:
			e := plan.Elements{Links: whole.Table.Links[:1], Forwards: whole.Table.Forwards[random.IntN(len(whole.Table.Forwards)):], Hairpins: whole.Table.Hairpins[:2]}
			s = plan.Dismiss{Elements: e}
		case 8:
			sh(t, "nft add element inet fairlead any4 '{ udp . 99 : 10.42.1.99 . 9 }'; nft add element inet fairlead pairs4 '{ 10.0.0.0-10.0.0.5 . 10.42.0.0/16 }'; nft add element inet fairlead open6 '{ 2001:db8::/32 }'")
			continue
		}
		// Something may be gone with what was removed before it.
		_ = c.Apply(t.Context(), []plan.Step{s})
	}
}

func TestForeignVXLANDeviceWithOurVNIIsNamed(t *testing.T) {
	c := hostNS(t)
	sh(t, "ip link add flannel.42 type vxlan id 42 dstport 4789 nolearning")
	err := c.Apply(t.Context(), plan.Steps(plan.Host{Networks: []plan.Network{blue()}}, c.mustObserve(t)))
	if err == nil || !strings.Contains(err.Error(), "flannel.42") {
		t.Fatalf("got %v", err)
	}
}

func TestDetachedLinkPassesNothingEvenBeforeItIsDeleted(t *testing.T) {
	c := hostNS(t)
	want := plan.Host{Networks: []plan.Network{blue()}}
	c.mustApply(t, plan.Steps(want, c.mustObserve(t)))
	a, ns := attachment(2), containerNS(t)
	c.mustApply(t, plan.Attach(a, ns))
	ping := func() error {
		return exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", pid(), ns.FD), "ping", "-c1", "-W1", "192.0.2.11").Run()
	}
	if err := ping(); err != nil {
		t.Fatalf("ping the host from the container: %v", err)
	}
	c.mustApply(t, plan.Detach(a))
	if err := ping(); err == nil {
		t.Fatal("the detached container still reaches the host")
	}
	if out := sh(t, "nft list chain inet fairlead antispoof"); !regexp.MustCompile(`iifgroup 64031 counter packets [1-9]`).MatchString(out) {
		t.Fatalf("the drop was not counted:\n%s", out)
	}
}

func BenchmarkAttachDetach(b *testing.B) {
	runtime.LockOSThread()
	back, _ := netns.Get()
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	defer func() { _ = netns.Set(back) }()
	c, err := Open(host.DefaultRoot())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	inner, _ := netns.New()
	defer inner.Close()
	_ = netns.Set(ns)
	have, err := c.Observe(b.Context())
	if err == nil {
		err = c.Apply(b.Context(), plan.Steps(plan.Host{Networks: []plan.Network{green()}}, have))
	}
	if err != nil {
		b.Fatal(err)
	}
	a := attachment(2)
	a.Node, a.Node6, a.Addr6 = netip.Addr{}, netip.Addr{}, netip.Addr{}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Apply(b.Context(), plan.Attach(a, plan.Namespace{FD: int(inner)})); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Apply(b.Context(), append(plan.Detach(a), plan.DeleteRetired{})); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func TestFirewallsOfOthersThatDropWhatIsForwardedAreNamed(t *testing.T) {
	c := hostNS(t)
	c.mustApply(t, plan.Steps(plan.Host{Networks: []plan.Network{blue()}}, c.mustObserve(t)))
	drops := func() string {
		t.Helper()
		list, err := c.ForwardDrops()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, ", ")
	}
	if got := drops(); got != "" {
		t.Fatalf("a fresh host drops in %s", got)
	}
	sh(t, "nft add table inet site; nft 'add chain inet site forward_in { type filter hook forward priority 0; policy drop; }'; nft 'add chain inet site other { type filter hook input priority 0; policy drop; }'")
	if got := drops(); got != "table inet site chain forward_in" {
		t.Fatalf("got %q", got)
	}
}
