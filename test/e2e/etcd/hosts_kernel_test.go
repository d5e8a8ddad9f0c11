//go:build kernel

package etcd

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// tunnelled is the default network without a choice of paths, which would change the kernels while we compare.
const tunnelled = "[{name: fairlead, cidr: 10.42.0.0/16, vni: 42, path: vxlan}]"

func TestThreeHostsComeAndGoAndLeaveNothingStale(t *testing.T) {
	t.Parallel()
	s := begin(t, tunnelled, "web1", "web2", "web3", "spare")
	ctx := t.Context()
	web1, web2, web3, spare := s.Node("web1"), s.Node("web2"), s.Node("web3"), s.Node("spare")
	s.join("fairlead", web1, web2, web3)
	s.settled("three hosts joined")

	f := s.flow(web1, "c-web1", web2.Boxes["c-web2"].Addr)
	before := s.kernels(web1, web2, web3)
	web2.Kill()
	for _, n := range []*Node{web1, web3} {
		s.until(n, "fairlead", "web2 is silent", silent("web2", true))
	}
	if now := s.kernels(web1, web2, web3); !reflect.DeepEqual(now, before) {
		t.Errorf("while an agent is dead the kernels have\n%v\nbefore\n%v", now, before)
	}
	s.must(web2.Start())
	s.until(web1, "fairlead", "web2 is back", silent("web2", false))
	f.whole("an agent was killed and came back")
	s.settled("an agent came back")

	web2.Kill()
	s.must(web2.Move(ctx, netip.MustParseAddr("192.0.2.72")))
	s.must(web2.Start())
	s.settled("web2 has another address")

	spare.Called = "web2"
	s.must(spare.Start())
	spare.Member = false
	s.says(spare, "another living machine is registered as web2", 1)
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // a command
		out, err := spare.Fairlead(ctx, "status")
		if err != nil && strings.Contains(out, "192.0.2.72") && strings.Contains(out, spare.Addr.String()) {
			break
		}
		if time.Since(began) > bound() {
			t.Fatalf("the status of a refused host does not name both, or is well: %v %s", err, out)
		}
	}
	s.settled("a second web2 was refused")
	spare.Stop()
	s.must(spare.Reimage(ctx))

	// web3 dies with all that is on it, and another machine takes its name.
	web3.Kill()
	s.must(web3.Unplug(ctx, true))
	web3.Member = false
	held := web3.Blocks("fairlead")
	s.until(web1, "fairlead", "web3 is silent", silent("web3", true))
	spare.Called = "web3"
	s.join("fairlead", spare)
	s.settled("web3 is another machine")
	if now := spare.Blocks("fairlead"); !reflect.DeepEqual(now, held) {
		t.Errorf("the new web3 holds %v, the old one held %v", now, held)
	}

	// The same machine anew: its state and containers are gone.
	web2.Kill()
	s.must(web2.Reimage(ctx))
	s.until(web1, "fairlead", "web2 is silent", silent("web2", true))
	s.join("fairlead", web2)
	s.settled("web2 was made anew")

	s.must(web2.Del(ctx, "c-web2"))
	if out, err := web2.Fairlead(ctx, "net", "leave"); err != nil {
		t.Fatalf("leave: %s %v", out, err)
	}
	web2.Stop()
	web2.Member = false
	s.settled("web2 left")
	s.join("fairlead", web2)
	s.settled("web2 joined again")

	spare.Kill()
	s.must(spare.Unplug(ctx, true))
	spare.Member = false
	s.until(web1, "fairlead", "web3 is silent", silent("web3", true))
	if out, err := web1.Fairlead(ctx, "net", "forget-node", "web3"); err != nil {
		t.Fatalf("forget: %s %v", out, err)
	}
	s.settled("web3 was forgotten")
}

// kernels is what hosts have in their kernels for the overlay.
func (s *story) kernels(nodes ...*Node) map[string]map[string]bool {
	s.t.Helper()
	out := map[string]map[string]bool{}
	for _, n := range nodes {
		have, err := n.kernel(s.t.Context())
		s.must(err)
		if len(have) < 5 {
			s.t.Fatalf("%s has only %v", n.Name, have)
		}
		out[n.Name] = have
	}
	return out
}
