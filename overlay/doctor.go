package overlay

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// Examine looks at what stands between containers and their peers.
func (o *Overlay) Examine() []host.Finding {
	o.mu.Lock()
	s, fault := o.session, o.fault
	o.mu.Unlock()
	if s == nil {
		f := host.Finding{What: "overlay", Found: "not up"}
		if fault != nil {
			f.Found = fault.Error()
		}
		return []host.Finding{f}
	}
	s.mu.Lock()
	underlay, networks := s.underlay, s.networks
	s.mu.Unlock()
	out := []host.Finding{{What: "underlay", OK: true, Found: "none: a single host"}}
	if underlay.Addr.IsValid() {
		out[0].Found = fmt.Sprintf("%s on %s, MTU %d", underlay.Addr, underlay.Dev, underlay.MTU)
	}
	for _, n := range networks {
		f := host.Finding{What: "network " + n.Name, OK: len(n.Blocks) > 0, Found: fmt.Sprintf("%d addresses free", s.table.freeOf(n.Name))}
		if len(n.Blocks) == 0 {
			f.Found, f.Advice = "this host holds no block of it", "give this node a block in overlay.peers"
		}
		out = append(out, f)
	}
	return append(out, forwardPolicy())
}

// forwardPolicy tells whether somebody else's firewall drops what we forward: an accept in our table does not overrule
// a drop in another one (nft(8), "base chains of the same hook are all traversed").
func forwardPolicy() host.Finding {
	f := host.Finding{What: "forwarding", OK: true, Found: "no other firewall drops by policy"}
	rules, err := exec.Command("iptables", "-S", "FORWARD").Output()
	if err != nil {
		f.Found = "iptables is not installed"
		return f
	}
	if strings.HasPrefix(string(rules), "-P FORWARD DROP") {
		f.OK = false
		f.Found = "iptables' FORWARD chain drops by policy (Docker sets this)"
		f.Advice = "iptables -I DOCKER-USER -s CIDR -j ACCEPT and -d CIDR -j ACCEPT for each overlay network"
	}
	return f
}
