package overlay

import (
	"maps"
	"net/netip"

	"github.com/fairlead-dev/fairlead/overlay/probe"
)

// NetworkStatus is one network as `fairlead net ls` shows it.
type NetworkStatus struct {
	Name        string         `json:"name"`
	CIDR        netip.Prefix   `json:"cidr"`
	CIDR6       netip.Prefix   `json:"cidr6,omitzero"`
	VNI         uint32         `json:"vni"`
	MTU         int            `json:"mtu"`
	Device      string         `json:"device,omitempty"`
	Node        netip.Addr     `json:"node,omitzero"`
	Blocks      []netip.Prefix `json:"blocks"`
	Attachments int            `json:"attachments"`
	Free        int            `json:"free"`
	Peers       []PeerStatus   `json:"peers"`
	Allow       []string       `json:"allow,omitempty"`
	Host        string         `json:"host"`
	Fault       string         `json:"fault,omitempty"` // why it is not served
	// Fixed are the parts of the CIDRs whose addresses move between hosts.
	Fixed []netip.Prefix `json:"fixed,omitempty"`
	// Fenced are containers with an address of a block that is another host's now.
	Fenced []string `json:"fenced,omitempty"`
}

// PeerStatus is one other host.
type PeerStatus struct {
	Name    string         `json:"name"`
	Address netip.Addr     `json:"address"`
	Blocks  []netip.Prefix `json:"blocks"`
	Path    string         `json:"path"`
	Silent  bool           `json:"silent,omitempty"` // its agent is not heard of
	// RTT is of the last answer on the path, in seconds; 0: none yet. MTU is the largest packet that passes, in bytes.
	RTT     float64 `json:"rtt_seconds,omitempty"`
	MTU     int     `json:"mtu"`
	Problem string  `json:"problem,omitempty"` // what probes show to be wrong
}

// Networks gives the networks of this host; none while the overlay is not up.
func (o *Overlay) Networks() []NetworkStatus {
	o.mu.Lock()
	s := o.session
	o.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	networks, listed, cluster := s.networks, s.listed, s.cluster
	faults := maps.Clone(s.faults)
	s.mu.Unlock()
	count, fenced := map[string]int{}, map[string][]string{}
	for _, a := range s.table.all() {
		count[a.Network]++
		if i := networkIndex(networks, a.Network); i >= 0 && isFenced(a, networks[i]) {
			fenced[a.Network] = append(fenced[a.Network], a.Owner)
		}
	}
	silent, states := map[string]bool{}, s.prober.States()
	for _, p := range cluster.Peers {
		silent[p.Name] = p.Silent
	}
	var out []NetworkStatus
	for _, n := range networks {
		st := NetworkStatus{
			Name: n.Name, CIDR: n.CIDR, CIDR6: n.CIDR6, VNI: n.VNI, MTU: n.MTU, Node: n.Node, Blocks: n.Blocks, Allow: n.Allow, Host: "deny",
			Attachments: count[n.Name], Free: s.table.freeOf(n.Name), Peers: []PeerStatus{}, Fenced: fenced[n.Name],
		}
		if n.Open {
			st.Host = "allow"
		}
		for _, shared := range cluster.Networks {
			if shared.Name == n.Name {
				st.Fixed = shared.FixedRanges()
			}
		}
		if n.Underlay.Addr.IsValid() {
			st.Device = n.Device()
		}
		for _, p := range n.Peers {
			path, state := pathOf(p), states[p.Name]
			st.Peers = append(st.Peers, PeerStatus{
				Name: p.Name, Address: p.VTEP.Addr, Blocks: p.Blocks, Path: path.String(), Silent: silent[p.Name],
				RTT: state.Ways[path].RTT.Seconds(), MTU: mtuOf(p, n.MTU), Problem: state.Problem(path == probe.Direct),
			})
		}
		out = append(out, st)
	}
	for _, n := range listed {
		if fault := faults[n.Name]; fault != "" {
			out = append(out, NetworkStatus{Name: n.Name, CIDR: n.CIDR, CIDR6: n.CIDR6, VNI: n.VNI, Host: n.Host, Fault: fault, Blocks: []netip.Prefix{}, Peers: []PeerStatus{}})
		}
	}
	return out
}

// Problem says why this host does not hold what it should of the store; empty when all is well.
func (o *Overlay) Problem() string {
	o.mu.Lock()
	s := o.session
	o.mu.Unlock()
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster.Problem
}
