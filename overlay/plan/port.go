package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Port is a port of the host that leads to one of a container.
type Port struct {
	// HostIP is the host's address that it is bound to. Invalid: every address; 0.0.0.0 and ::: every one of the family.
	HostIP        netip.Addr `json:"host_ip,omitzero"`
	HostPort      uint16     `json:"host_port"`
	ContainerPort uint16     `json:"container_port"`
	Protocol      Transport  `json:"protocol"`
}

func (p Port) String() string {
	if !p.HostIP.IsValid() {
		return fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(p.HostIP, p.HostPort), p.Protocol)
}

// Clashes tells whether p and q take a port of the host from each other.
func (p Port) Clashes(q Port) bool {
	if p.HostPort != q.HostPort || p.Protocol != q.Protocol {
		return false
	}
	if !p.HostIP.IsValid() || !q.HostIP.IsValid() {
		return true
	}
	return p.HostIP == q.HostIP || p.HostIP.Is4() == q.HostIP.Is4() && (p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified())
}

// Transport is a transport protocol by its number (IANA).
type Transport uint8

// The transports of host ports.
const (
	TCP  Transport = 6
	UDP  Transport = 17
	SCTP Transport = 132
)

var transports = map[Transport]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}

func (p Transport) String() string { return transports[p] }

// MarshalText gives the name.
func (p Transport) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText takes the name in lower case.
func (p *Transport) UnmarshalText(text []byte) error {
	for number, name := range transports {
		if name == string(text) {
			*p = number
			return nil
		}
	}
	return fmt.Errorf("expected tcp, udp or sctp, found %q", text)
}

// Forward is one element of the table's port maps: what comes to a port of the host goes to a container's.
type Forward struct {
	Host     netip.AddrPort // an unspecified address stands for every one of its family
	Protocol Transport
	To       netip.AddrPort
}

func (f Forward) String() string { return fmt.Sprintf("%s/%s : %s", f.Host, f.Protocol, f.To) }

func (f Forward) compare(g Forward) int {
	return cmp.Or(f.Host.Compare(g.Host), cmp.Compare(f.Protocol, g.Protocol), f.To.Compare(g.To))
}

// Forwards gives the elements for a's ports.
func Forwards(a Attachment) []Forward {
	var out []Forward
	for _, p := range a.Ports {
		for _, addr := range a.Addrs() {
			host := p.HostIP
			switch {
			case !host.IsValid() && addr.Is4():
				host = netip.IPv4Unspecified()
			case !host.IsValid():
				host = netip.IPv6Unspecified()
			case host.Is4() != addr.Is4():
				continue
			}
			out = append(out, Forward{netip.AddrPortFrom(host, p.HostPort), p.Protocol, netip.AddrPortFrom(addr, p.ContainerPort)})
		}
	}
	slices.SortFunc(out, Forward.compare)
	return out
}

// Adopted gives the ports of which a's forwards, found in the kernel, are made: for an attachment whose journal is lost.
func Adopted(a Attachment, have []Forward) []Port {
	var out []Port
	for _, f := range have {
		if slices.Contains(a.Addrs(), f.To.Addr()) {
			out = append(out, Port{HostIP: f.Host.Addr(), HostPort: f.Host.Port(), ContainerPort: f.To.Port(), Protocol: f.Protocol})
		}
	}
	return out
}
