package overlay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
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
		out[0].Found = underlay.String()
	}
	for _, n := range networks {
		out = append(out, s.examineNetwork(n, underlay.MTU))
	}
	if problem := o.Problem(); problem != "" {
		out = append(out, host.Finding{What: "store " + o.store.Name(), Found: problem})
	}
	out = append(out, s.examinePeers()...)
	return append(out, s.forwarding())
}

func (s *session) examineNetwork(n plan.Network, underlayMTU int) host.Finding {
	f := host.Finding{What: "network " + n.Name, OK: true, Found: fmt.Sprintf("%d addresses free, MTU %d", s.table.freeOf(n.Name), n.MTU)}
	switch {
	case len(n.Blocks) == 0:
		f.OK, f.Found, f.Advice = false, "this host holds no block of it", "static: give this node a block in overlay.peers; etcd: see the store's finding"
	case n.Underlay.Addr.IsValid() && n.MTU+vxlanOverhead(n.Underlay.Addr) > underlayMTU:
		f.OK = false
		f.Advice = fmt.Sprintf("the underlay carries %d bytes, which leaves %d inside VXLAN; lower mtu or remove it from the configuration", underlayMTU, underlayMTU-vxlanOverhead(n.Underlay.Addr))
	}
	return f
}

// forwarding tells whether somebody else's firewall drops what we forward: an accept in our table does not overrule a
// drop in another one (nft(8): every base chain of a hook is traversed).
func (s *session) forwarding() host.Finding {
	f := host.Finding{What: "forwarding", OK: true, Found: "no other firewall drops it"}
	dropping, err := s.kernel.ForwardDrops()
	if s.passes.Load() {
		dropping = slices.DeleteFunc(dropping, func(chain string) bool {
			return strings.HasSuffix(chain, "filter chain FORWARD") || chain == "firewalld"
		})
	}
	switch {
	case err != nil:
		f.OK, f.Found = false, err.Error()
	case len(dropping) > 0:
		f.OK = false
		f.Found = "dropped by " + strings.Join(dropping, ", ")
		f.Advice = "accept each network's cidr there as source and as destination"
	}
	return f
}
