//go:build kernel

package overlay_test

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

const (
	viaVXLAN = "dev fl-vx42"
	plainly  = "via 192.0.2.12 dev under"
	farPlain = "via 192.0.2.11 dev eth0"
)

// talk sends a byte from one container to the other every 20 ms over one connection, and gives when each came.
func (p *pair) talk() (came chan time.Time) {
	p.t.Helper()
	var l net.Listener
	inside(p.t, p.there.NetNamespace, func() (err error) {
		l, err = net.Listen("tcp", ":7000")
		return err
	})
	p.t.Cleanup(func() { _ = l.Close() })
	came = make(chan time.Time, 10000)
	go func() {
		defer close(came)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for b := make([]byte, 1000); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
			came <- time.Now()
		}
	}()
	var c net.Conn
	inside(p.t, p.here.NetNamespace, func() (err error) {
		c, err = net.DialTimeout("tcp", at(p.there.Addr, 7000), 10*time.Second)
		return err
	})
	p.t.Cleanup(func() { _ = c.Close() })
	go func() {
		for {
			if _, err := c.Write([]byte{1}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return came
}

// after waits for a byte that came later than a moment.
func after(t *testing.T, came chan time.Time, moment time.Time) time.Time {
	t.Helper()
	patience := time.After(hosttest.Bound(30 * time.Second))
	for {
		select {
		case at, open := <-came:
			if !open {
				t.Fatal("the connection broke")
			}
			if at.After(moment) {
				return at
			}
		case <-patience:
			t.Fatal("nothing comes any more")
		}
	}
}

// metrics gives each as one line: name, values of labels, value.
func (p *pair) metrics() string {
	var b strings.Builder
	for _, f := range p.stats.Families() {
		for _, s := range f.Samples {
			b.WriteString(f.Name)
			for _, l := range s.Labels {
				b.WriteString(" " + l.Value)
			}
			fmt.Fprintf(&b, " %v\n", s.Value)
		}
	}
	return b.String()
}

func TestPacketsFallBackToVXLANWithinFiveSecondsAndConnectionsGoOn(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "auto")
	t.Logf("direct after %s", p.until("direct", p.route, plainly).Round(time.Millisecond))
	p.until("direct there", p.farRoute, farPlain)
	came := p.talk()
	after(t, came, time.Now())
	p.dropPlain()
	broke := time.Now()
	took := p.until("fallen back", p.route, viaVXLAN)
	t.Logf("by VXLAN after %s", took.Round(time.Millisecond))
	p.until("fallen back there", p.farRoute, viaVXLAN)
	t.Logf("bytes came again %s after the fault", after(t, came, time.Now()).Sub(broke).Round(time.Millisecond))
	if took > hosttest.Bound(15*time.Second) { // 4 s; package probe shows that to the millisecond
		t.Errorf("it took %s", took)
	}
	if seen := p.ask(p.here.NetNamespace, at(p.there.Addr, 80)); seen != p.here.Addr.String() {
		t.Errorf("by VXLAN: seen as %q", seen)
	}
	metrics := p.metrics()
	for _, want := range []string{"peer_path web2 vxlan 1", "peer_mtu_bytes web2 1450", "peer_silent web2 direct 1", "peer_silent web2 vxlan 0"} {
		if !strings.Contains(metrics, "fairlead_overlay_"+want+"\n") {
			t.Errorf("metrics: no %s in\n%s", want, metrics)
		}
	}
}

func TestAnAgentThatIsKilledChangesNoPath(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "auto")
	p.until("direct", p.route, plainly)
	p.until("direct there", p.farRoute, farPlain)
	if err := p.agent.Process.Kill(); err != nil { // nsenter has become the agent
		t.Fatal(err)
	}
	_ = p.agent.Wait()
	for range 60 { // six seconds: one more than it may take to fall back
		time.Sleep(100 * time.Millisecond)
		if !strings.Contains(p.route(), plainly) {
			t.Fatalf("the route is %s", p.route())
		}
	}
	if problem := p.peer().Problem; problem != "" {
		t.Errorf("a dead agent is taken for a dead host: %s", problem)
	}
	if seen := p.ask(p.here.NetNamespace, at(p.there.Addr, 80)); seen != p.here.Addr.String() {
		t.Errorf("seen as %q", seen)
	}
}

// peer is web2 as status shows it.
func (p *pair) peer() overlay.PeerStatus { return p.o.Networks()[0].Peers[0] }

// answered waits until a probe is.
func (p *pair) answered() {
	p.t.Helper()
	for began := time.Now(); p.peer().RTT == 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > hosttest.Bound(15*time.Second) {
			p.t.Fatalf("no probe is answered: %+v", p.peer())
		}
	}
}

func TestABlackHoleIsFoundAndLargePacketsGetThroughAfterwards(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "vxlan")
	p.answered()
	p.middle("ip link set p0 mtu 1300; ip link set p1 mtu 1300") // what is larger (1304 with a VLAN tag) is dropped, and nobody told
	t.Logf("found after %s", p.until("narrow", p.route, "mtu 125").Round(time.Millisecond))
	p.until("narrow there", p.farRoute, "mtu 125")
	if s := p.peer(); s.MTU/10 != 125 || !strings.Contains(s.Problem, "the path carries") {
		t.Errorf("status: %+v", s)
	}
	if i := slices.IndexFunc(p.o.Examine(), func(f host.Finding) bool {
		return f.What == "peer web2" && !f.OK && strings.Contains(f.Found, "between this host and web2: packets of more than") && strings.Contains(f.Advice, "set the network's mtu to")
	}); i < 0 {
		t.Errorf("doctor: %+v", p.o.Examine())
	}
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	var l net.Listener
	inside(t, p.there.NetNamespace, func() (err error) {
		l, err = net.Listen("tcp", ":7001")
		return err
	})
	defer l.Close()
	got := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		if c, err := l.Accept(); err == nil {
			_ = c.SetDeadline(time.Now().Add(hosttest.Bound(30 * time.Second)))
			_, _ = io.Copy(h, c)
			_ = c.Close()
		}
		got <- [32]byte(h.Sum(nil))
	}()
	inside(t, p.here.NetNamespace, func() error {
		c, err := net.DialTimeout("tcp", at(p.there.Addr, 7001), 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(hosttest.Bound(30 * time.Second)))
		_, err = c.Write(data)
		return err
	})
	if <-got != sha256.Sum256(data) {
		t.Error("5 MB did not get through")
	}
}

func TestARestartWithADirectAndANarrowPathWritesNothing(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "auto")
	p.until("direct", p.route, plainly)
	p.middle("ip link set p0 mtu 1300; ip link set p1 mtu 1300")
	p.until("narrow", p.route, "mtu 1")
	table := func() string { return p.sh("nft -a list table inet fairlead | grep handle") }
	p.stop()
	before, rules := p.route(), table()
	if !strings.Contains(before, plainly) {
		t.Fatalf("the path changed too: %s", before)
	}
	written := routeEvents(t)
	p.start(p.cfg)
	if events := written(); len(events) > 0 {
		t.Errorf("the restart wrote routes: %q", events)
	}
	if after := table(); after != rules {
		t.Errorf("the restart wrote the table; before:\n%s\nafter:\n%s", rules, after)
	}
	p.sh("ip route del 10.42.2.0/24 proto 94")
	if len(written()) == 0 {
		t.Error("the events of routes do not come")
	}
}

// routeEvents gives what the kernel told of routes since the last call. It tells while a route is written.
func routeEvents(t *testing.T) func() (messages []string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_ROUTE}); err != nil {
		t.Fatal(err)
	}
	return func() (messages []string) {
		for b := make([]byte, 8<<10); ; {
			n, err := unix.Read(fd, b)
			if err != nil {
				return messages
			}
			messages = append(messages, string(b[:n]))
		}
	}
}

// What a probe may, a container may not: neither one of this host nor one of a peer.
func TestAContainerCannotSendProbesToAHost(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "vxlan")
	p.sh("ping -c1 -W5 " + p.here.Addr.String() + "; ping -c1 -W5 " + p.there.Addr.String()) // the host may ask them
	for who, ns := range map[string]*hosttest.NetNamespace{"its own host": p.here.NetNamespace, "a peer": p.there.NetNamespace} {
		out, err := exec.Command("nsenter", "--net="+ns.Path, "ping", "-c2", "-i0.2", "-W1", "-t255", "10.42.1.1").CombinedOutput()
		if err == nil {
			t.Errorf("a container of %s was answered:\n%s", who, out)
		}
		inside(t, ns, func() error {
			c, err := net.Dial("udp4", "10.42.1.1:33434")
			if err != nil {
				return err
			}
			defer c.Close()
			_, _ = c.Write([]byte("hello"))
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Read(make([]byte, 10)); err != nil && strings.Contains(err.Error(), "refused") {
				t.Errorf("a container of %s was answered by UDP", who)
			}
			return nil
		})
	}
}

// Each host answers by its own routes: one has to begin.
func TestWhereVXLANIsBlockedFromTheStartTheDirectPathIsFound(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "auto", dropVXLAN)
	t.Logf("direct after %s", p.until("direct", p.route, plainly).Round(time.Millisecond))
	p.until("direct there", p.farRoute, farPlain)
	for began := time.Now(); !strings.Contains(p.peer().Problem, "it is reached directly"); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > hosttest.Bound(20*time.Second) {
			t.Fatalf("the trial did not prove it: %+v", p.peer())
		}
	}
	if seen := p.ask(p.here.NetNamespace, at(p.there.Addr, 80)); seen != p.here.Addr.String() {
		t.Errorf("seen as %q", seen)
	}
}

func TestAnUnderlayThatGoesDownAndComesBackIsTakenAgain(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "auto")
	p.until("direct", p.route, plainly)
	p.sh("ip link set under down")
	p.until("down", p.route, viaVXLAN)
	p.box("meanwhile", "blue")
	p.sh("ip link set under up; ip route add default via 192.0.2.254 dev under")
	p.until("direct again", p.route, plainly)
	if seen := p.ask(p.here.NetNamespace, at(p.there.Addr, 80)); seen != p.here.Addr.String() {
		t.Errorf("seen as %q", seen)
	}
}
