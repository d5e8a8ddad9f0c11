//go:build kernel

package kernel

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestFlowsToAPortOfTheHostAreForgottenAndThoseMasqueradedToSuchAPortStay(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	hosttest.Require(t, "conntrack")
	sh := func(script string) string {
		t.Helper()
		out, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	for _, flow := range []string{"192.0.2.11 5353", "192.0.2.11 5354", "198.51.100.1 5353 -n 192.0.2.11", "2001:db8::11 5353", "2001:db8:1::1 5353 -n 2001:db8::11"} {
		f := strings.Fields(flow)
		from := "10.42.0.2"
		if strings.Contains(f[0], ":") {
			from = "fd42::2"
		}
		sh("conntrack -I -t 600 -p udp --sport 40000 -s " + from + " -d " + f[0] + " --dport " + strings.Join(f[1:], " "))
	}
	c, err := Open(host.DefaultRoot())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	flows := []plan.Flow{{Protocol: plan.UDP, DstPort: 5353}, {V6: true, Protocol: plan.UDP, DstPort: 5353}}
	if err := c.Apply(t.Context(), []plan.Step{plan.ForgetFlows{Flows: flows}}); err != nil {
		t.Fatal(err)
	}
	left := strings.Fields(sh(`for f in ipv4 ipv6; do conntrack -L -f $f 2>/dev/null; done | sed -E 's/.* dst=([^ ]+) sport=40000 dport=([0-9]+) .*/\1,\2/'`))
	slices.Sort(left)
	if want := []string{"192.0.2.11,5354", "198.51.100.1,5353", "2001:db8:1::1,5353"}; !slices.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
}
