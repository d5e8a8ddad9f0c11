//go:build kernel

package overlay_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// pair is two hosts on one switch: web1 is this process, web2 another one, each with an overlay and a container.
type pair struct {
	*site
	sw    *hosttest.NetNamespace // ports p0 of web1 and p1 of web2
	far   *hosttest.NetNamespace // web2
	here  box
	there box
	agent *exec.Cmd      // of web2
	cfg   overlay.Config // of both
}

// otherHost tells a process of this test that it is web2: its configuration, and its container's namespace.
type otherHost struct {
	Config    overlay.Config
	Container string
}

const otherHostKey = "FAIRLEAD_TEST_OTHER_HOST"

func newPair(t *testing.T, path string, before ...string) *pair {
	t.Helper()
	s, sw, host := onSwitch(t)
	p := &pair{site: s, sw: sw, far: host("192.0.2.12")}
	s.sh("ip route add default via 192.0.2.254 dev under; nsenter --net=" + p.far.Path + " ip route add default via 192.0.2.254 dev eth0")
	for _, script := range before {
		p.middle(script)
	}
	p.begin(path, "192.0.2.12")
	return p
}

// newRoutedPair has a router between the hosts instead, with the ports p0 and p1.
func newRoutedPair(t *testing.T, path string) *pair {
	t.Helper()
	p := &pair{site: &site{t: t}, sw: hosttest.NetNS(t), far: hosttest.NetNS(t)}
	p.sh("ip link add under type veth peer name p0 netns " + p.sw.Path + "; nsenter --net=" + p.far.Path + " ip link add eth0 type veth peer name p1 netns " + p.sw.Path + `
		ip addr add 192.0.2.11/24 dev under; ip link set under up; nsenter --net=` + p.far.Path + ` sh -ec 'ip addr add 198.51.100.12/24 dev eth0; ip link set eth0 up'
		nsenter --net=` + p.sw.Path + ` sh -ec 'ip addr add 192.0.2.254/24 dev p0; ip addr add 198.51.100.254/24 dev p1; ip link set p0 up; ip link set p1 up; sysctl -qw net.ipv4.ip_forward=1'
		ip route add default via 192.0.2.254; nsenter --net=` + p.far.Path + ` ip route add default via 198.51.100.254`)
	p.begin(path, "198.51.100.12")
	return p
}

// newRoutedPair6 is the same with an underlay of IPv6.
func newRoutedPair6(t *testing.T) *pair {
	t.Helper()
	p := &pair{site: &site{t: t}, sw: hosttest.NetNS(t), far: hosttest.NetNS(t)}
	p.sh("ip link add under type veth peer name p0 netns " + p.sw.Path + "; nsenter --net=" + p.far.Path + " ip link add eth0 type veth peer name p1 netns " + p.sw.Path + `
		ip addr add 2001:db8:1::11/64 dev under nodad; ip link set under up; nsenter --net=` + p.far.Path + ` sh -ec 'ip addr add 2001:db8:2::12/64 dev eth0 nodad; ip link set eth0 up'
		nsenter --net=` + p.sw.Path + ` sh -ec 'ip addr add 2001:db8:1::fe/64 dev p0 nodad; ip addr add 2001:db8:2::fe/64 dev p1 nodad; ip link set p0 up; ip link set p1 up; sysctl -qw net.ipv6.conf.all.forwarding=1'
		ip route add default via 2001:db8:1::fe; nsenter --net=` + p.far.Path + ` ip route add default via 2001:db8:2::fe`)
	p.beginAs("vxlan", "2001:db8:1::11", "2001:db8:2::12")
	return p
}

// begin starts both hosts and their containers.
func (p *pair) begin(path, address string) {
	p.t.Helper()
	p.beginAs(path, "192.0.2.11", address)
}

func (p *pair) beginAs(path, own, address string) {
	s := p.site
	s.t.Helper()
	c := hosts(2, path)
	c.Peers[0].Address, c.Peers[1].Address = netip.MustParseAddr(own), netip.MustParseAddr(address)
	p.there.NetNamespace = hosttest.NetNS(s.t)
	p.startOther(otherHost{c, p.there.Path})
	p.cfg = c
	s.start(c)
	p.here = s.box("here", "blue")
	s.serve(p.there.NetNamespace, ":80")
}

// startOther runs web2 in a process of its own.
func (p *pair) startOther(as otherHost) {
	p.t.Helper()
	told, err := json.Marshal(as)
	if err != nil {
		p.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	p.agent = exec.Command("nsenter", "--net="+p.far.Path, os.Args[0], "-test.v", "-test.run=^TestAsTheOtherHost$")
	p.agent.Env = append(os.Environ(), otherHostKey+"="+string(told))
	p.agent.ExtraFiles = []*os.File{w}
	p.agent.Stdout, p.agent.Stderr = p.t.Output(), p.t.Output()
	stop, err := p.agent.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.agent.Start(); err != nil {
		p.t.Fatal(err)
	}
	_ = w.Close()
	p.t.Cleanup(func() {
		_ = stop.Close()
		_ = p.agent.Wait()
	})
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.there.Attachment)
	}
	if err != nil {
		p.t.Fatal("the other host did not come up: ", err)
	}
}

// TestAsTheOtherHost is web2 of a pair, until its standard input ends.
func TestAsTheOtherHost(t *testing.T) {
	told := os.Getenv(otherHostKey)
	if told == "" {
		return // nobody's other host
	}
	var as otherHost
	if err := json.Unmarshal([]byte(told), &as); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t}
	s.startAs("web2", as.Config)
	ns, err := os.Open(as.Container)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	a, err := s.o.Attach(t.Context(), overlay.Request{
		Key: plan.Key{Owner: "there", IfName: "eth0"}, Network: "blue", NS: plan.Namespace{FD: int(ns.Fd()), Path: as.Container},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(os.NewFile(3, "told")).Encode(a); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// route is that to the other host's block.
func (p *pair) route() string { return p.sh("ip route show 10.42.2.0/24") }

// farRoute is the other host's to ours.
func (p *pair) farRoute() string {
	return p.sh("nsenter --net=" + p.far.Path + " ip route show 10.42.1.0/24")
}

// until waits for a route to say something, and gives how long that took.
func (p *pair) until(what string, route func() string, want string) time.Duration {
	p.t.Helper()
	began := time.Now()
	for !strings.Contains(route(), want) {
		if time.Since(began) > hosttest.Bound(45*time.Second) {
			p.t.Fatalf("%s: the route is %s\n%+v\n%s", what, route(), p.peer(), p.sh("ip neigh; nft list table inet fairlead; ip -s link"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// dropVXLAN drops VXLAN on the switch.
const dropVXLAN = `nft add table bridge fault; nft "add chain bridge fault f { type filter hook forward priority 0; }"; nft add rule bridge fault f udp dport 4789 drop`

// middle runs a command where the switch is.
func (p *pair) middle(script string) {
	p.t.Helper()
	p.sh("nsenter --net=" + p.sw.Path + " sh -ec '" + script + "'")
}

// dropPlain drops what is not VXLAN, as a cloud does that checks source addresses.
func (p *pair) dropPlain() {
	p.t.Helper()
	p.middle(`nft add table bridge cloud; nft "add chain bridge cloud f { type filter hook forward priority 0; }"; nft add rule bridge cloud f ip saddr 10.42.0.0/16 drop`)
}
