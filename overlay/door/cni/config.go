package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// config is a CNI network configuration as this plugin reads it. Keys of other plugins and capabilities are theirs.
type config struct {
	types.PluginConf
	Network       string `json:"network"` // fairlead network; default: the configuration's name
	RuntimeConfig struct {
		IPs []string `json:"ips"` // capability "ips"
	} `json:"runtimeConfig"`
}

func parseConfig(text []byte) (config, *wire.Error) {
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return c, wire.Errorf(wire.CodeDecode, "decode network configuration", err)
	}
	if c.CNIVersion == "" {
		c.CNIVersion = "0.3.1" // the oldest that the spec's later versions assume
	}
	if !slices.Contains(wire.SpecVersions, c.CNIVersion) {
		return c, &wire.Error{Code: wire.CodeIncompatible, Msg: fmt.Sprintf("cniVersion: expected one of %v, found %q", wire.SpecVersions, c.CNIVersion)}
	}
	if c.network() == "" {
		return c, &wire.Error{Code: wire.CodeInvalidConfig, Msg: `name: required, it chooses the network (or set "network")`}
	}
	return c, nil
}

func (c config) network() string {
	if c.Network != "" {
		return c.Network
	}
	return c.Name
}

// fixedAddr gives the address that was asked for, by the "ips" capability or by IP= in CNI_ARGS, or an invalid one.
func (c config) fixedAddr(args string) (netip.Addr, *wire.Error) {
	asked, where := "", ""
	for pair := range strings.SplitSeq(args, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok && key == "IP" {
			asked, where = value, "CNI_ARGS: IP"
		}
	}
	if len(c.RuntimeConfig.IPs) > 0 {
		asked, where = c.RuntimeConfig.IPs[0], "runtimeConfig.ips[0]"
	}
	if asked == "" {
		return netip.Addr{}, nil
	}
	text, _, _ := strings.Cut(asked, "/") // the capability allows a prefix length
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, &wire.Error{Code: wire.CodeInvalidConfig, Msg: fmt.Sprintf("%s: expected an IPv4 address, found %q", where, asked)}
	}
	return addr, nil
}

// result is the spec's answer to ADD, in the version that the configuration asks for, behind that of plugins before us.
func (c config) result(a plan.Attachment) (json.RawMessage, error) {
	res := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if c.RawPrevResult != nil {
		if err := version.ParsePrevResult(&c.PluginConf); err != nil {
			return nil, fmt.Errorf("prevResult: %w", err)
		}
		prev, err := types100.NewResultFromResult(c.PrevResult)
		if err != nil {
			return nil, fmt.Errorf("prevResult: %w", err)
		}
		res = prev
	}
	inner := len(res.Interfaces) + 1
	res.Interfaces = append(res.Interfaces,
		&types100.Interface{Name: a.Link(), Mac: plan.HostMAC.String()},
		&types100.Interface{Name: a.IfName, Mac: a.ContainerMAC().String(), Sandbox: a.NetNS})
	gateway := net.IP(plan.Gateway.AsSlice())
	res.IPs = append(res.IPs, &types100.IPConfig{
		Interface: &inner,
		Address:   net.IPNet{IP: a.Addr.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Gateway:   gateway,
	})
	reach := plan.ContainerRoutes(a)[1].Dst
	res.Routes = append(res.Routes, &types.Route{
		Dst: net.IPNet{IP: reach.Addr().AsSlice(), Mask: net.CIDRMask(reach.Bits(), 32)}, GW: gateway,
	})
	asked, err := res.GetAsVersion(c.CNIVersion)
	if err != nil {
		return nil, err
	}
	return json.Marshal(asked)
}
