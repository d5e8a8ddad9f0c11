//go:build kernel

package overlay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestBesideFirewalldContainersPassAlsoAfterItsReload(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	firewall := hosttest.Firewalld(t)
	s := &site{t: t, outside: hosttest.NetNS(t)}
	s.sh(`ip link set lo up; ip link add under type veth peer name far netns ` + s.outside.Path + `; ip addr add 192.0.2.11/24 dev under; ip link set under up
		nsenter --net=` + s.outside.Path + ` sh -ec 'ip addr add 192.0.2.12/24 dev far; ip link set far up'
		ip route add default via 192.0.2.12`)
	c := hosts(2, "vxlan")
	ours := plan.VTEPMAC("web1", 42).String()
	s.sh("nsenter --net=" + s.outside.Path + ` sh -ec 'ip link add vx address ` + plan.VTEPMAC("web2", 42).String() + ` type vxlan id 42 dstport 4789 nolearning local 192.0.2.12
		bridge fdb add ` + ours + ` dev vx dst 192.0.2.11 self; ip link set vx up; ip addr add 10.42.2.5/32 dev vx
		ip neigh add 10.42.1.1 lladdr ` + ours + ` dev vx; ip route add 10.42.1.0/24 via 10.42.1.1 dev vx onlink src 10.42.2.5'`)
	s.start(c)
	a, b := s.box("a", "blue", plan.Port{HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP}), s.box("b", "blue")
	s.serve(s.outside, "192.0.2.12:9000")
	ways := []struct {
		name, to, seen string
		from           *hosttest.NetNamespace
	}{
		{"to a neighbour", at(a.Addr, 80), b.Addr.String(), b.NetNamespace},
		{"outward", "192.0.2.12:9000", "192.0.2.11", b.NetNamespace},
		{"from outside through a port of the host", "192.0.2.11:8080", "192.0.2.12", s.outside},
		{"from a peer, by VXLAN", at(a.Addr, 80), "10.42.2.5", s.outside},
	}
	eventually := func(when string) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(50 * time.Millisecond) { // firewalld does it, not we
			missing := ""
			for _, w := range ways {
				if s.ask(w.from, w.to) != w.seen {
					missing = w.name
					break
				}
			}
			if missing == "" {
				return
			}
			if time.Since(began) > time.Minute {
				trusted, _ := firewall.Command(t.Context(), "--zone=trusted", "--list-all")
				t.Fatalf("%s: nothing passes %s\n%s", when, missing, trusted)
			}
		}
	}
	eventually("at the start")
	if out, err := firewall.Command(t.Context(), "--reload"); err != nil {
		t.Fatal(err, out)
	}
	eventually("after a reload")
	if ports, _ := firewall.Command(t.Context(), "--zone=public", "--list-ports"); strings.TrimSpace(ports) != "4789/udp" {
		t.Errorf("open in the zone public: %q", ports)
	}
}
