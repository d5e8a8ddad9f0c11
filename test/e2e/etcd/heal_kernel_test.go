//go:build kernel

package etcd

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// networks are one that is reached plainly and one by VXLAN.
const networks = `[{name: blue, cidr: 10.42.0.0/16, vni: 42, path: direct}, {name: green, cidr: 10.43.0.0/16, vni: 43, path: vxlan}]`

func TestWhatSomebodyDoesToThePathsIsPutRightCountedAndToldOnce(t *testing.T) {
	t.Parallel()
	s := begin(t, networks, "web1", "web2")
	web1, web2 := s.Node("web1"), s.Node("web2")
	s.join("green", web1, web2)
	s.must(web1.Add(t.Context(), "b-web1", "blue"))
	s.must(web2.Add(t.Context(), "b-web2", "blue"))
	s.until(web1, "blue", "web2 is found on the segment", func(n Network) bool { return n.direct("web2") })
	s.settled("two hosts joined")
	vtep, block := plan.VTEPMAC("web2", 43), web2.Blocks("green")[0]
	var tooks []time.Duration
	for _, damage := range []string{
		"ip link del fl-vx43", "ip link set fl-vx43 down",
		"ip route flush proto 94", fmt.Sprintf("ip route del %s proto 94", block), fmt.Sprintf("ip route replace %s via %s dev eth0 proto 94", block, web2.Addr),
		"nft delete table inet fairlead", "nft flush table inet fairlead", fmt.Sprintf("nft delete element inet fairlead vteps4 '{ %s }'", web2.Addr),
		fmt.Sprintf("bridge fdb replace %s dev fl-vx43 dst 192.0.2.99 self permanent", vtep), fmt.Sprintf("bridge fdb del %s dev fl-vx43", vtep),
		fmt.Sprintf("ip neigh replace %s lladdr 02:00:00:00:00:99 dev fl-vx43 nud permanent", web2.Addr), fmt.Sprintf("ip neigh del %s dev fl-vx43", web2.Addr),
	} {
		whole, counted, told := s.state(web1), s.repaired(web1), s.told(web1)
		_, err := web1.Sh(t.Context(), damage)
		s.must(err)
		began, now := time.Now(), s.state(web1)
		for ; now != whole || s.told(web1) == told; now = s.state(web1) { // the kernel tells the agent, not us
			if time.Since(began) > bound() {
				t.Fatalf("after %q:\n%s\nwant:\n%s", damage, now, whole)
			}
		}
		took := time.Since(began)
		tooks = append(tooks, took)
		t.Logf("%s: put right after %s, %d steps", damage, took.Round(time.Millisecond), s.repaired(web1)-counted)
		if s.repaired(web1) == counted {
			t.Errorf("%s: put right and not counted", damage)
		}
		// A flush is many changes, and the repair may begin among them.
		if lines := s.told(web1) - told; lines != 1 && !(strings.Contains(damage, "flush") && lines == 2) {
			t.Errorf("%s: told %d times", damage, lines)
		}
	}
	s.settled("after all damage")
	slices.Sort(tooks)
	if median := tooks[len(tooks)/2]; median > hosttest.Bound(2*time.Second) {
		t.Errorf("it takes %s", median)
	}
}

// state is all that somebody could change of a host's paths.
func (s *story) state(n *Node) string {
	s.t.Helper()
	out, err := n.Sh(s.t.Context(), `nft list table inet fairlead 2>/dev/null | sed 's/packets [0-9]* bytes [0-9]*//' || :
		{ ip route show proto 94; ip neigh show nud permanent; bridge fdb show | grep 'dev fl-vx'; ip -br addr show type vxlan; ip -o link show type vxlan | grep -o ' fl-vx.*UP.*group.*'; } | sort`)
	s.must(err)
	return ownAddr.ReplaceAllString(out, "")
}

var ownAddr = regexp.MustCompile(`fe80::\S+`) // the kernel's own, which comes when it has looked for duplicates

// told is how often a host's agent said that it put something right.
func (s *story) told(n *Node) int {
	s.t.Helper()
	b, err := os.ReadFile(n.Log())
	s.must(err)
	return strings.Count(string(b), "host networking differed from what is wanted")
}

var repairSteps = regexp.MustCompile(`(?m)^fairlead_overlay_repair_steps_total (\d+)`)

func (s *story) repaired(n *Node) int {
	s.t.Helper()
	page, err := n.Run(s.t.Context(), "bash", "-ec", `exec 3<>/dev/tcp/127.0.0.1/9478; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)
	s.must(err)
	m := repairSteps.FindStringSubmatch(page)
	if m == nil {
		s.t.Fatalf("the page has no count of repairs:\n%s", page)
	}
	count, _ := strconv.Atoi(m[1])
	return count
}
