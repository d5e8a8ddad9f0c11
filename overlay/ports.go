package overlay

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// HostPort is a port of the host and who has it.
type HostPort struct {
	plan.Port
	Holder  string       `json:"holder"`
	Network string       `json:"network,omitempty"` // of a container of ours
	Addrs   []netip.Addr `json:"addrs,omitempty"`
}

// HostPorts lists the ports of the host that somebody has: containers of ours, Docker's, and processes. It looks at
// every process and takes some time.
func (o *Overlay) HostPorts(ctx context.Context) ([]HostPort, error) {
	s, err := o.current(ctx)
	if err != nil {
		return nil, err
	}
	var out []HostPort
	for _, a := range s.table.all() {
		for _, p := range a.Ports {
			out = append(out, HostPort{p, "container " + a.Key.String(), a.Network, a.Addrs()})
		}
	}
	docker, err1 := s.kernel.DockerPorts()
	listeners, err2 := s.kernel.Listeners()
	for _, l := range append(docker, listeners...) {
		out = append(out, HostPort{Port: l.Port, Holder: l.Process})
	}
	slices.SortStableFunc(out, func(a, b HostPort) int {
		return cmp.Or(cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.Protocol, b.Protocol), a.HostIP.Compare(b.HostIP), cmp.Compare(a.Holder, b.Holder))
	})
	same := func(a, b HostPort) bool { return a.Port == b.Port && a.Holder == b.Holder }
	return slices.CompactFunc(out, same), errors.Join(err1, err2)
}
