package kernel

import (
	"strings"
	"testing"
)

func TestDockersPortsAreReadFromItsRules(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]string{
		"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80":               "8080/tcp Docker's container 172.17.0.2:80",
		"-A DOCKER -d 192.0.2.11/32 ! -i br-1 -p udp -m udp --dport 53 -j DNAT --to-destination 172.18.0.3:5353": "192.0.2.11:53/udp Docker's container 172.18.0.3:5353",
		"-A DOCKER -i docker0 -j RETURN": "",
		"-N DOCKER":                      "",
		"-A DOCKER -p icmp -j DNAT --to-destination 172.17.0.2": "",
	} {
		l, ok := dockerPort(strings.Fields(rule))
		got := ""
		if ok {
			got = l.String() + " " + l.Process
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", rule, got, want)
		}
	}
}

func TestOurRulesAreInsertedOnce(t *testing.T) {
	t.Parallel()
	if got := missing("", nil); got != nil {
		t.Errorf("where nobody drops: %v", got)
	}
	have := []string{"-N DOCKER-USER", "-A DOCKER-USER -i flc+ -m comment --comment fairlead -j ACCEPT", "-A DOCKER-USER -j RETURN"}
	if got := missing("DOCKER-USER", have); len(got) != 3 {
		t.Errorf("missing: %v", got)
	}
}
