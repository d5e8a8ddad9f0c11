package overlay

import (
	"maps"
	"net/netip"
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
}

// PeerStatus is one other host.
type PeerStatus struct {
	Name    string         `json:"name"`
	Address netip.Addr     `json:"address"`
	Blocks  []netip.Prefix `json:"blocks"`
	Path    string         `json:"path"`
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
	networks, listed := s.networks, s.listed
	faults := maps.Clone(s.faults)
	s.mu.Unlock()
	count := map[string]int{}
	for _, a := range s.table.all() {
		count[a.Network]++
	}
	var out []NetworkStatus
	for _, n := range networks {
		st := NetworkStatus{
			Name: n.Name, CIDR: n.CIDR, CIDR6: n.CIDR6, VNI: n.VNI, MTU: n.MTU, Node: n.Node, Blocks: n.Blocks, Allow: n.Allow, Host: "deny",
			Attachments: count[n.Name], Free: s.table.freeOf(n.Name), Peers: []PeerStatus{},
		}
		if n.Open {
			st.Host = "allow"
		}
		if n.Underlay.Addr.IsValid() {
			st.Device = n.Device()
		}
		for _, p := range n.Peers {
			path := "vxlan"
			if p.Direct != "" {
				path = "direct"
			}
			st.Peers = append(st.Peers, PeerStatus{Name: p.Name, Address: p.VTEP.Addr, Blocks: p.Blocks, Path: path})
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
