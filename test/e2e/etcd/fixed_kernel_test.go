//go:build kernel

package etcd

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// addFixed makes a container that asks for an address, and perhaps for others.
func (s *story) addFixed(n *Node, box string, addr netip.Addr, others ...string) error {
	err := s.callFixed(n, "ADD", box, append([]string{addr.String()}, others...)...)
	if err == nil {
		n.Boxes[box] = Box{"fairlead", addr}
	}
	return err
}

// callFixed makes a call of a container that asks for addresses. It may be called concurrently.
func (s *story) callFixed(n *Node, command, box string, addrs ...string) error {
	out, err := n.Sh(s.t.Context(), fmt.Sprintf(
		`test -e /run/netns/%[2]s || ip netns add %[2]s
		echo '{"cniVersion":"1.0.0","name":"fairlead","type":"fairlead-cni"}' | CNI_ARGS=IP=%[3]s CNI_COMMAND=%[1]s CNI_CONTAINERID=%[2]s CNI_NETNS=/run/netns/%[2]s CNI_IFNAME=eth0 CNI_PATH=%[4]s %[4]s/fairlead-cni
		if [ %[1]s = DEL ]; then ip netns del %[2]s; fi`, command, box, strings.Join(addrs, ","), bin))
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", command, box, err, out)
	}
	return nil
}

// eventually waits until a script succeeds on a host.
func (s *story) eventually(n *Node, what, script string) {
	s.t.Helper()
	for began := time.Now(); ; {
		out, err := n.Sh(s.t.Context(), script)
		if err == nil {
			return
		}
		if time.Since(began) > bound() {
			s.t.Fatalf("%s: %s: %v %s", n.Name, what, err, out)
		}
	}
}

func (s *story) sh(n *Node, script string) string {
	s.t.Helper()
	out, err := n.Sh(s.t.Context(), script)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// move takes containers off one host, all at once, and makes them on another with their addresses. It gives the longest
// time from one's DEL until somebody elsewhere reaches it.
func (s *story) move(from, to, third *Node, boxes map[string]netip.Addr) (longest time.Duration) {
	s.t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for box, addr := range boxes {
		all.Go(func() {
			began := time.Now()
			err := s.callFixed(from, "DEL", box)
			for err == nil {
				err = s.callFixed(to, "ADD", box, addr.String())
				if err == nil {
					_, err = third.Sh(s.t.Context(), fmt.Sprintf("until nsenter --net=/run/netns/c-%s ping -q -c1 -W0.1 %s; do :; done", third.Name, addr))
					break
				}
				if time.Since(began) < bound() {
					err = nil // as a runtime tries it again
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.t.Errorf("%s with %s: %v", box, addr, err)
			}
			longest = max(longest, time.Since(began))
		})
	}
	all.Wait()
	for box, addr := range boxes {
		delete(from.Boxes, box)
		to.Boxes[box] = Box{"fairlead", addr}
	}
	return longest
}

func TestContainersTakeTheirFixedAddressesToAnotherHost(t *testing.T) {
	t.Parallel()
	s := begin(t, "", "web1", "web2", "web3")
	web1, web2, web3 := s.Node("web1"), s.Node("web2"), s.Node("web3")
	s.join("fairlead", web1, web2, web3)
	one := map[string]netip.Addr{"db": netip.MustParseAddr("10.42.240.5")}
	five := map[string]netip.Addr{}
	for i := range 5 {
		five[fmt.Sprintf("app%d", i)] = netip.AddrFrom4([4]byte{10, 42, 240, byte(10 + i)})
	}
	for _, boxes := range []map[string]netip.Addr{one, five} {
		for box, addr := range boxes {
			s.must(s.addFixed(web1, box, addr))
		}
	}
	s.settled("web1 has six fixed addresses")
	s.sh(web3, "ip route del 10.42.240.5")
	if took := s.settled("somebody took the route to one"); took > hosttest.Bound(10*time.Second) {
		t.Errorf("it came back by the minute's look only, after %s", took)
	}
	err := s.addFixed(web2, "thief", one["db"])
	if err == nil || !strings.Contains(err.Error(), "10.42.240.5 is held by host web1, for container db") {
		t.Errorf("a second holder was told: %v", err)
	}
	if err := s.addFixed(web2, "thief", web1.Boxes["c-web1"].Addr); err == nil || !strings.Contains(err.Error(), "which host web1 holds; addresses that move between hosts are those of [10.42.240.0/20]") {
		t.Errorf("who asked for an address of another's block was told: %v", err)
	}
	for name, boxes := range map[string]map[string]netip.Addr{"one container": one, "five containers of a drained host": five} {
		best := time.Hour
		for turn, hosts := 0, []*Node{web1, web2}; turn < 3 && best > hosttest.Bound(2*time.Second); turn++ { // others may have the processors
			best = min(best, s.move(hosts[turn%2], hosts[1-turn%2], web3, boxes))
		}
		t.Logf("%s: reached from a third host %s after the release", name, best.Round(time.Millisecond))
		if best > hosttest.Bound(2*time.Second) {
			t.Errorf("%s: reached only %s after the release", name, best)
		}
	}
	s.settled("they have moved")
}

func TestAFixedAddressIsTakenFromASilentHostWhichIsHeardNoMore(t *testing.T) {
	t.Parallel()
	s := begin(t, "[{name: fairlead, cidr: 10.42.0.0/16, cidr6: fd42::/48, vni: 42, path: vxlan}]", "web1", "web2", "web3")
	ctx := t.Context()
	web1, web2, web3 := s.Node("web1"), s.Node("web2"), s.Node("web3")
	s.join("fairlead", web1, web2, web3)
	addr, addr6 := netip.MustParseAddr("10.42.240.5"), "fd42:0:0:f000::5"
	s.must(s.addFixed(web1, "db", addr, addr6))
	reached := func(n *Node, what string) {
		t.Helper()
		s.eventually(n, what, fmt.Sprintf("for a in %s %s; do nsenter --net=/run/netns/c-%s ping -q -c1 -W0.1 $a; done", addr, addr6, n.Name))
	}
	reached(web3, "web1 has it")
	if out, err := web2.Fairlead(ctx, "net", "take", "10.42.240.5", "--take-over"); err == nil || !strings.Contains(out+err.Error(), "is held by host web1") {
		t.Errorf("taken from a living host: %v %s", err, out)
	}
	// The container stays, and the kernel goes on; only the agent is dead.
	web1.Kill()
	s.until(web2, "fairlead", "web1 is silent", silent("web1", true))
	if err := s.addFixed(web2, "db", addr, addr6); err == nil || !strings.Contains(err.Error(), "fairlead net take 10.42.240.5 --take-over") {
		t.Errorf("who asks for a silent host's was told: %v", err)
	}
	for _, a := range []string{addr.String(), addr6} {
		if out, err := web2.Fairlead(ctx, "net", "take", a, "--take-over"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	s.must(s.addFixed(web2, "db", addr, addr6))
	reached(web3, "the new holder")

	// web1's container still sends; what comes of that to web3's is counted.
	s.sh(web3, fmt.Sprintf(`nsenter --net=/run/netns/c-web3 nft 'add table inet t; add chain inet t in { type filter hook input priority 0; }
		add rule inet t in ip saddr %s icmp type echo-request counter; add rule inet t in ip6 saddr %s icmpv6 type echo-request counter'`, addr, addr6))
	c3 := s.sh(web3, "nsenter --net=/run/netns/c-web3 ip -6 -br addr show dev eth0 scope global | grep -o 'fd42[0-9a-f:]*'")
	heard := func() (four, six int) {
		for _, to := range []string{web3.Boxes["c-web3"].Addr.String(), strings.TrimSpace(c3)} {
			s.sh(web1, "nsenter --net=/run/netns/db ping -q -c3 -i0.01 -W1 "+to+" || :") // what is answered goes to the new holder
		}
		out := s.sh(web3, "nsenter --net=/run/netns/c-web3 nft list table inet t | grep -o 'packets [0-9]*'")
		if _, err := fmt.Sscanf(out, "packets %d\npackets %d", &four, &six); err != nil {
			t.Fatal(err, out)
		}
		return four, six
	}
	disowned := func() {
		t.Helper()
		s.eventually(web3, "web1 is disowned", fmt.Sprintf("nft list set inet fairlead disowned4 | grep -q %s && nft list set inet fairlead disowned6 | grep -q %s", addr, addr6))
	}
	disowned()
	if four, six := heard(); four+six > 0 {
		t.Errorf("%d and %d packets of the earlier holder came to a container on web3", four, six)
	}
	// That is the rules' doing alone: with nobody to put them right, they come.
	web3.Kill()
	s.sh(web3, "nft flush set inet fairlead disowned4; nft flush set inet fairlead disowned6")
	if four, six := heard(); four == 0 || six == 0 {
		t.Errorf("without the rules' elements %d and %d came", four, six)
	}
	s.must(web3.Start())
	disowned()

	// web1 comes back, learns and withdraws: it reaches the new holder like everybody.
	s.must(web1.Start())
	s.until(web1, "fairlead", "its container is told", func(n Network) bool { return len(n.Fenced) == 1 && n.Fenced[0] == "db" })
	s.eventually(web1, "the way is to web2", fmt.Sprintf("ip route show 10.42.240.5 | grep -q 'via %s'", web2.Addr))
	s.sh(web1, "ip route del unreachable 10.42.0.0/16") // all is looked at anew
	s.eventually(web1, "it was put right", "ip route show 10.42.0.0/16 | grep -q unreachable")
	s.sh(web1, fmt.Sprintf("for i in $(seq 20); do ip route show 10.42.240.5 | grep 'via %s'; sleep 0.05; done", web2.Addr)) // and stays so
	reached(web1, "the new holder, from the host of the former")

	// When web2 has given it back, web1 may have it again, and its container with it.
	s.must(web2.Del(ctx, "db"))
	for _, a := range []string{addr.String(), addr6} {
		s.eventually(web1, "it gets it back", bin+"/fairlead net take "+a)
	}
	s.eventually(web1, "the way is to its container", "ip route show 10.42.240.5 | grep -q 'dev flc'")
	reached(web3, "the first holder again")
}
