//go:build kernel

package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// site is one host, this process's own namespace, and an outside that it has a default route to and that knows the way
// to our networks.
type site struct {
	t       *testing.T
	o       *overlay.Overlay
	outside *hosttest.NetNamespace
	stats   *stat.Registry
	dir     string // the overlay's state
	stop    func() // ends the overlay; may be called again
}

type board struct{}

func (board) Publish([]container.Attachment) {}

func newSite(t *testing.T, networks ...overlay.Network) *site {
	t.Helper()
	s := &site{t: t, outside: hosttest.NetNS(t)}
	s.sh(`ip link add under type veth peer name far netns ` + s.outside.Path + `
		ip addr add 192.0.2.11/24 dev under; ip -6 addr add 2001:db8::11/64 dev under nodad; ip link set under up
		nsenter --net=` + s.outside.Path + ` sh -ec '
			ip addr add 192.0.2.99/24 dev far; ip -6 addr add 2001:db8::99/64 dev far nodad; ip link set far up
			ip route add 10.0.0.0/8 via 192.0.2.11; ip -6 route add fd42::/48 via 2001:db8::11'
		ip route add default via 192.0.2.99; ip -6 route add default via 2001:db8::99`)
	c := overlay.DefaultConfig()
	c.Networks = networks
	s.start(c)
	return s
}

// start runs an overlay in this process's namespace until the test ends.
func (s *site) start(c overlay.Config) {
	s.t.Helper()
	s.startAs("web1", c)
}

// startAs runs that of the host NAME. After stop it may be called again, for another life with the same state.
func (s *site) startAs(name string, c overlay.Config) {
	s.t.Helper()
	t := s.t
	s.stats = &stat.Registry{}
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	dir, err := state.Open(s.dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	s.o, err = overlay.New(c, overlay.Deps{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Stats: s.stats, State: dir, Root: host.DefaultRoot(), Board: board{}, NodeName: name,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.o.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	if err := s.o.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *site) sh(script string) string {
	s.t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// box is a container: a namespace with an attachment, and a server on its port 80.
type box struct {
	*hosttest.NetNamespace
	plan.Attachment
}

func (s *site) attach(name, network string, ports ...plan.Port) (box, error) {
	b := box{NetNamespace: hosttest.NetNS(s.t)}
	var err error
	b.Attachment, err = s.o.Attach(s.t.Context(), overlay.Request{
		Key: plan.Key{Owner: name, IfName: "eth0"}, Network: network, NS: plan.Namespace{FD: int(b.File.Fd()), Path: b.Path}, Ports: ports,
	})
	return b, err
}

func (s *site) box(name, network string, ports ...plan.Port) box {
	s.t.Helper()
	b, err := s.attach(name, network, ports...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.serve(b.NetNamespace, ":80")
	return b
}

// serve answers each TCP connection in ns (nil: the host) with the address that it came from.
func (s *site) serve(ns *hosttest.NetNamespace, at string) netip.AddrPort {
	s.t.Helper()
	var l net.Listener
	inside(s.t, ns, func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			_, _ = io.WriteString(c, from.String())
			_ = c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func inside(t *testing.T, ns *hosttest.NetNamespace, f func() error) {
	t.Helper()
	var err error
	if ns == nil {
		err = f()
	} else {
		err = ns.Run(f)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ask gives the address as which the server at to sees somebody in ns (nil: the host), or "" when nothing answers for
// some seconds.
func (s *site) ask(ns *hosttest.NetNamespace, to string) (seen string) {
	s.t.Helper()
	return s.askFor(5*time.Second, ns, to)
}

func (s *site) askFor(patience time.Duration, ns *hosttest.NetNamespace, to string) (seen string) {
	s.t.Helper()
	ask := func() error {
		c, err := net.DialTimeout("tcp", to, patience)
		if err != nil {
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		b, err := io.ReadAll(c)
		seen = string(b)
		return err
	}
	inside(s.t, ns, ask)
	return seen
}

func at(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }

func blue() overlay.Network {
	return overlay.Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), CIDR6: netip.MustParsePrefix("fd42::/64"), VNI: 42}
}

// hosts is the configuration of so many that share a network by a path: web1 at 192.0.2.11 with 10.42.1.0/24, and so on.
func hosts(n byte, path string) overlay.Config {
	c := overlay.DefaultConfig()
	c.Store = "static"
	c.Networks = []overlay.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42, Path: path}}
	for i := byte(1); i <= n; i++ {
		c.Peers = append(c.Peers, overlay.Peer{
			Name: fmt.Sprintf("web%d", i), Address: netip.AddrFrom4([4]byte{192, 0, 2, 10 + i}),
			Blocks: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, i, 0}), 24)},
		})
	}
	return c
}

func green() overlay.Network {
	return overlay.Network{Name: "green", CIDR: netip.MustParsePrefix("10.43.0.0/16"), CIDR6: netip.MustParsePrefix("fd42:0:0:43::/64"), VNI: 43}
}

// open may reach the host, and red may talk with blue.
func open() overlay.Network {
	return overlay.Network{Name: "open", CIDR: netip.MustParsePrefix("10.44.0.0/16"), CIDR6: netip.MustParsePrefix("fd42:0:0:44::/64"), VNI: 44, Host: "allow"}
}

func red() overlay.Network {
	return overlay.Network{Name: "red", CIDR: netip.MustParsePrefix("10.45.0.0/16"), CIDR6: netip.MustParsePrefix("fd42:0:0:45::/64"), VNI: 45, Allow: []string{"blue"}}
}

func TestWhoReachesWhom(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue(), green(), open(), red())
	web := plan.Port{HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP}
	b1, b2, g, o, r := s.box("b1", "blue", web), s.box("b2", "blue"), s.box("g", "green"), s.box("o", "open"), s.box("r", "red")
	service := s.serve(nil, ":0").Port()
	s.serve(s.outside, ":9000")
	host4, host6 := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
	out4, out6 := netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8::99")
	for _, c := range []struct {
		name string
		from *hosttest.NetNamespace
		to   string
		seen netip.Addr // invalid: nobody answers
	}{
		{"a neighbour on the same network", b2.NetNamespace, at(b1.Addr, 80), b2.Addr},
		{"a neighbour by IPv6", b2.NetNamespace, at(b1.Addr6, 80), b2.Addr6},
		{"another network", g.NetNamespace, at(b1.Addr, 80), netip.Addr{}},
		{"another network by IPv6", g.NetNamespace, at(b1.Addr6, 80), netip.Addr{}},
		{"a network that lets this one in", b1.NetNamespace, at(r.Addr, 80), b1.Addr},
		{"a network that lets this one in, the other way, by IPv6", r.NetNamespace, at(b1.Addr6, 80), r.Addr6},
		{"the host's service", b1.NetNamespace, at(host4, service), netip.Addr{}},
		{"the host's service by IPv6", b1.NetNamespace, at(host6, service), netip.Addr{}},
		{"the host's service from a network that may", o.NetNamespace, at(host4, service), o.Addr},
		{"the host's service from a network that may, by IPv6", o.NetNamespace, at(host6, service), o.Addr6},
		{"a container from the host", nil, at(b1.Addr, 80), host4},
		{"a container from outside, past its ports", s.outside, at(b1.Addr, 80), netip.Addr{}},
		{"a container from outside, past its ports, by IPv6", s.outside, at(b1.Addr6, 80), netip.Addr{}},
		{"outside, masqueraded", b1.NetNamespace, at(out4, 9000), host4},
		{"outside by IPv6, masqueraded", b1.NetNamespace, at(out6, 9000), host6},
		{"a published port from outside", s.outside, at(host4, 8080), out4},
		{"a published port from outside by IPv6", s.outside, at(host6, 8080), out6},
		{"a published port from another network", g.NetNamespace, at(host4, 8080), g.Addr},
		{"one's own published port", b1.NetNamespace, at(host4, 8080), host4},
		{"one's own published port by IPv6", b1.NetNamespace, at(host6, 8080), host6},
		{"a published port from the host", nil, at(host4, 8080), host4},
		{"a published port from the host by loopback", nil, "127.0.0.1:8080", host4},
	} {
		want, patience := "", 300*time.Millisecond
		if c.seen.IsValid() {
			want, patience = c.seen.String(), 5*time.Second
		}
		if seen := s.askFor(patience, c.from, c.to); seen != want {
			t.Errorf("%s: asked %s and was seen as %q, want %q", c.name, c.to, seen, want)
		}
	}
	if t.Failed() {
		t.Log(s.sh("nft list table inet fairlead; ip route; ip -6 route; ip addr"))
	}
	s.sh("nsenter --net=" + b2.Path + " ip link set eth0 address 02:00:00:00:00:99")
	if seen := s.askFor(300*time.Millisecond, b2.NetNamespace, at(b1.Addr, 80)); seen != "" {
		t.Errorf("a container that took another MAC was answered as %s", seen)
	}
}

func TestAPortHasOneHolderWhoIsNamed(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	port := plan.Port{HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP}
	s.box("first", "blue", port)
	on := port
	on.HostIP = netip.MustParseAddr("192.0.2.11")
	refused := func(p plan.Port, holder string) {
		t.Helper()
		_, err := s.attach("second", "blue", p)
		if held := (*overlay.PortInUseError)(nil); !errors.As(err, &held) || !strings.Contains(err.Error(), holder) {
			t.Errorf("port %s: %v, want that %s has it", p, err, holder)
		}
	}
	refused(port, "container first/eth0")
	refused(on, "container first/eth0")
	port.HostPort = s.serve(nil, "127.0.0.1:0").Port()
	refused(port, "process ")
	port.Protocol = plan.UDP // another protocol is another port
	b, err := s.attach("second", "blue", port)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever is detached leaves port and address to the next one at once.
	if err := s.o.Detach(t.Context(), b.Key, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.attach("third", "blue", port); err != nil {
		t.Fatal(err)
	}
	if err := s.o.Detach(t.Context(), plan.Key{Owner: "third", IfName: "eth0"}, ""); err != nil {
		t.Fatal(err)
	}
}

func TestASteadyUDPClientReachesTheNewContainerAtOnce(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	port := plan.Port{HostPort: 5353, ContainerPort: 53, Protocol: plan.UDP}
	var client *net.UDPConn
	inside(t, s.outside, func() (err error) {
		client, err = net.DialUDP("udp", &net.UDPAddr{Port: 40000}, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 11), Port: 5353})
		return err
	})
	defer client.Close()
	ask := func() string {
		_ = client.SetDeadline(time.Now().Add(time.Second))
		_, _ = client.Write([]byte("?"))
		b := make([]byte, 100)
		for {
			n, err := client.Read(b)
			if err == nil {
				return string(b[:n])
			}
			if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
				return ""
			}
			if strings.Contains(err.Error(), "refused") {
				return "refused"
			}
		}
	}
	if got := ask(); got != "refused" {
		t.Fatalf("before any container: %q", got)
	}
	for i := range 3 {
		name := fmt.Sprintf("c%d", i)
		b, err := s.attach(name, "blue", port)
		if err != nil {
			t.Fatal(err)
		}
		var l *net.UDPConn
		inside(t, b.NetNamespace, func() (err error) {
			l, err = net.ListenUDP("udp", &net.UDPAddr{Port: 53})
			return err
		})
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := l.ReadFromUDP(b)
				if err != nil {
					return
				}
				_, _ = l.WriteToUDP([]byte(name), from)
			}
		}()
		if got := ask(); got != name {
			t.Errorf("the client that asks all the time was answered by %q, not by %s", got, name)
		}
		if err := s.o.Detach(t.Context(), b.Key, ""); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		_, _ = client.Write([]byte("?")) // keeps the entry of connection tracking alive
	}
}

func TestNetworksAreMadeAndRemovedByCommand(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	s.sh("ip route add 10.50.7.0/24 dev under")
	for _, c := range []struct {
		change func(*overlay.Network)
		want   string
	}{
		{func(n *overlay.Network) { n.CIDR = netip.MustParsePrefix("10.42.8.0/24") }, "overlaps 10.42.0.0/16 of network blue"},
		{func(n *overlay.Network) { n.VNI = 42 }, "vni: 42 is network blue's"},
		{func(n *overlay.Network) { n.CIDR = netip.MustParsePrefix("10.50.0.0/16") }, "10.50.7.0/24 dev under"},
		{func(n *overlay.Network) { n.Allow = []string{"yellow"} }, `there is no other network "yellow"`},
		{func(n *overlay.Network) { n.Name = "blue" }, `there is a network "blue" already`},
	} {
		n := green()
		c.change(&n)
		if err := s.o.CreateNetwork(t.Context(), n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	n := green()
	n.Allow = []string{"blue"}
	if err := s.o.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	b, g := s.box("b", "blue"), s.box("g", "green")
	if seen := s.ask(b.NetNamespace, at(g.Addr, 80)); seen != b.Addr.String() {
		t.Errorf("an allowed pair: seen as %q", seen)
	}
	if err := s.o.RemoveNetwork(t.Context(), "green"); err == nil || !strings.Contains(err.Error(), "containers are on it: g") {
		t.Errorf("removed under a container: %v", err)
	}
	if err := s.o.Detach(t.Context(), g.Key, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.o.RemoveNetwork(t.Context(), "green"); err != nil {
		t.Fatal(err)
	}
	if out := s.sh("ip route; nft list table inet fairlead"); strings.Contains(out, "10.43.") {
		t.Errorf("left of green:\n%s", out)
	}
	if err := s.o.RemoveNetwork(t.Context(), "blue"); err == nil || !strings.Contains(err.Error(), "configuration file") {
		t.Errorf("removed the configuration's: %v", err)
	}
}

func TestBesideAFirewallThatDropsWhatIsForwarded(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	hosttest.Require(t, "iptables")
	s := newSite(t, blue())
	b := s.box("b", "blue", plan.Port{HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP})
	s.serve(s.outside, ":9000")
	reached := func() bool {
		return s.ask(b.NetNamespace, "192.0.2.99:9000") == "192.0.2.11" && s.ask(s.outside, "[2001:db8::11]:8080") == "2001:db8::99"
	}
	if !reached() {
		t.Fatal("not even without another firewall")
	}
	eventually := func(what string) {
		t.Helper()
		for began := time.Now(); !reached(); {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%s: containers do not pass\n%s", what, s.sh("iptables -S; ip6tables -S"))
			}
		}
	}
	s.sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
	eventually("a policy")
	// As Docker does at its start: a chain for people's rules, before its own.
	s.sh("for i in iptables ip6tables; do $i -N DOCKER-USER; $i -A DOCKER-USER -j RETURN; $i -F FORWARD; $i -A FORWARD -j DOCKER-USER; done")
	eventually("Docker's chains")
	if rules := s.sh("iptables -S"); strings.Count(rules, "-A DOCKER-USER") != 5 || strings.Count(rules, "-A FORWARD") != 1 {
		t.Errorf("rules:\n%s", rules)
	}
}

func TestElementsThatSomebodyTakesReturnWithinTwoSeconds(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	b := s.box("b", "blue", plan.Port{HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP})
	for _, damage := range []string{
		"nft flush map inet fairlead any4", "nft flush set inet fairlead links", "nft flush set inet fairlead hairpin6",
		"nft flush set inet fairlead pairs4", "nft add element inet fairlead open4 '{ 10.42.0.0/16 }'", "nft flush chain inet fairlead isolate",
		"ip link set " + b.Link() + " down", "ip link set " + b.Link() + " mtu 1300", "ip link set " + b.Link() + " group 0",
		"ip -6 route del " + b.Addr6.String(), "ip -6 neigh del " + b.Addr6.String() + " dev " + b.Link(), "sysctl -qw net.ipv6.conf.all.forwarding=0",
	} {
		whole := s.state()
		s.sh(damage)
		began := time.Now()
		for s.state() != whole && time.Since(began) < 3*time.Second {
			time.Sleep(20 * time.Millisecond) // the kernel tells the agent, not us
		}
		if took := time.Since(began); took > hosttest.Bound(2*time.Second) {
			t.Fatalf("after %q for %s:\n%s\nwant:\n%s", damage, took, s.state(), whole)
		}
	}
}

// state is what a careless person could change.
func (s *site) state() string {
	return s.sh("nft list table inet fairlead | sed 's/packets [0-9]* bytes [0-9]*//'; ip -o link show type veth | grep -o '^.*state [A-Z]*.*group [0-9a-z]*' | sort; ip route show proto 94; ip -6 route show proto 94; ip -6 neigh show nud permanent; cat /proc/sys/net/ipv6/conf/all/forwarding")
}

func TestIPv6IsTurnedOnForTheInterfaceWhereAContainerHasItOff(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	off := hosttest.NetNS(t)
	s.sh("nsenter --net=" + off.Path + " sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
	a, err := s.o.Attach(t.Context(), overlay.Request{
		Key: plan.Key{Owner: "off", IfName: "eth0"}, Network: "blue", NS: plan.Namespace{FD: int(off.File.Fd()), Path: off.Path},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.serve(off, ":80")
	if seen := s.ask(s.box("b", "blue").NetNamespace, at(a.Addr6, 80)); seen == "" {
		t.Error("its IPv6 address does not answer")
	}
}
