package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// previous gives the result of the plugins before us (ADD) or of all (CHECK); nil without one.
func (c config) previous() (*types100.Result, error) {
	if c.RawPrevResult == nil {
		return nil, nil
	}
	// The library takes null for an element, and falls over it later.
	for key, value := range c.RawPrevResult {
		elements, _ := value.([]any)
		if i := slices.Index(elements, nil); i >= 0 {
			return nil, fmt.Errorf("prevResult: %s[%d] is null", key, i)
		}
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	prev, err := types100.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	return prev, nil
}

// result is the spec's answer to ADD, in the version that the configuration asks for, behind that of plugins before us.
func (c config) result(a plan.Attachment, prev *types100.Result) (json.RawMessage, error) {
	res := prev
	if res == nil {
		res = &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	}
	inner := len(res.Interfaces) + 1
	res.Interfaces = append(res.Interfaces,
		&types100.Interface{Name: a.Link(), Mac: plan.HostMAC.String(), Mtu: a.MTU},
		&types100.Interface{Name: a.IfName, Mac: a.ContainerMAC().String(), Mtu: a.MTU, Sandbox: a.NetNS})
	gateways := map[bool]net.IP{}
	for _, r := range plan.ContainerRoutes(a) {
		if r.Via.IsValid() {
			gateways[r.Via.Is6()] = r.Via.AsSlice()
			res.Routes = append(res.Routes, &types.Route{Dst: ipNet(r.Dst), GW: r.Via.AsSlice()})
		}
	}
	for _, addr := range a.Addrs() {
		res.IPs = append(res.IPs, &types100.IPConfig{
			Interface: &inner, Address: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Gateway: gateways[addr.Is6()],
		})
	}
	asked, err := res.GetAsVersion(c.CNIVersion)
	if err != nil {
		return nil, err
	}
	return json.Marshal(asked)
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// said gives what the final result says of a container's interface.
func said(res *types100.Result, ifName string) overlay.Said {
	if res == nil {
		return overlay.Said{}
	}
	s := overlay.Said{Known: true}
	if _, i := inner(res, ifName); i != nil {
		s.MTU = i.Mtu
	}
	for _, r := range res.Routes {
		if p, ok := prefix(r.Dst); ok {
			s.Routes = append(s.Routes, p)
		}
	}
	return s
}

// contradictions names the addresses that a result gives a container's interface and that a does not have, and the
// other way round.
func contradictions(res *types100.Result, a plan.Attachment) []string {
	if res == nil {
		return nil
	}
	at, _ := inner(res, a.IfName)
	if at < 0 {
		return []string{fmt.Sprintf("prevResult has no interface %s in the container", a.IfName)}
	}
	var out []string
	var have []netip.Addr
	for _, ip := range res.IPs {
		if p, ok := prefix(ip.Address); ok && ip.Interface != nil && *ip.Interface == at {
			have = append(have, p.Addr())
		}
	}
	for _, addr := range a.Addrs() {
		if !slices.Contains(have, addr) {
			out = append(out, fmt.Sprintf("prevResult gives %s %v, but it has address %s", a.IfName, have, addr))
		}
	}
	return out
}

// inner finds the container's interface in a result; -1 and nil when it is not there.
func inner(res *types100.Result, ifName string) (int, *types100.Interface) {
	i := slices.IndexFunc(res.Interfaces, func(i *types100.Interface) bool { return i.Name == ifName && i.Sandbox != "" })
	if i < 0 {
		return -1, nil
	}
	return i, res.Interfaces[i]
}

func prefix(n net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	p := netip.PrefixFrom(addr.Unmap(), bits)
	return p, ok && p.IsValid()
}
