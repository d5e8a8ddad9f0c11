package cni

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// The annotations of a pod that ask for fixed addresses (separated by commas) and for a MAC. The network cannot be
// chosen so: it is a border, and whoever writes a pod does not draw it.
const (
	annotationIPs = "fairlead.ips"
	annotationMAC = "fairlead.mac"
)

// wish is one thing asked for, and where it stands, for error messages.
type wish struct{ value, at string }

// request turns what the configuration and CNI_ARGS ask for into the overlay's words. Of several places that speak of
// the same thing the most particular counts: runtimeConfig, args, the pod's annotation, CNI_ARGS.
func (c config) request(args string) (overlay.Request, *wire.Error) {
	r := overlay.Request{Network: c.network(), Runtime: c.Owner}
	vars, fault := parseArgs(args)
	if fault != nil {
		return r, fault
	}
	for _, w := range c.addresses(vars) {
		if fault := w.address(&r); fault != nil {
			return r, fault
		}
	}
	if fault := c.mac(vars).mac(&r); fault != nil {
		return r, fault
	}
	for i, m := range c.RuntimeConfig.PortMappings {
		p, fault := m.port(fmt.Sprintf("runtimeConfig.portMappings[%d]", i))
		if fault != nil {
			return r, fault
		}
		r.Ports = append(r.Ports, p)
	}
	return r, nil
}

// addresses gives the wishes of the first place that has any.
func (c config) addresses(vars map[string]string) []wish {
	for _, from := range []struct {
		at     string
		values []string
	}{
		{"runtimeConfig.ips", c.RuntimeConfig.IPs},
		{"args.cni.ips", c.Args.CNI.IPs},
		{"pod annotation " + annotationIPs, list(c.RuntimeConfig.Annotations[annotationIPs])},
		{"CNI_ARGS: IP", list(vars["IP"])},
	} {
		var out []wish
		for _, v := range from.values {
			out = append(out, wish{v, from.at})
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

func (c config) mac(vars map[string]string) wish {
	for _, w := range []wish{
		{c.RuntimeConfig.MAC, "runtimeConfig.mac"},
		{c.Args.CNI.MAC, "args.cni.mac"},
		{c.RuntimeConfig.Annotations[annotationMAC], "pod annotation " + annotationMAC},
		{vars["MAC"], "CNI_ARGS: MAC"},
	} {
		if w.value != "" {
			return w
		}
	}
	return wish{}
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// address enters one fixed address; there is one of each family at most.
func (w wish) address(r *overlay.Request) *wire.Error {
	text, _, _ := strings.Cut(strings.TrimSpace(w.value), "/") // the capability allows a prefix length
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() {
		return badConfig("%s: expected an IP address, found %q", w.at, w.value)
	}
	into := &r.Addr
	if addr.Is6() {
		into = &r.Addr6
	}
	if into.IsValid() {
		return badConfig("%s: expected one address of each family at most, found %s and %s", w.at, into, addr)
	}
	*into = addr
	return nil
}

func (w wish) mac(r *overlay.Request) *wire.Error {
	if w.value == "" {
		return nil
	}
	err := r.MAC.UnmarshalText([]byte(w.value))
	if err == nil && (r.MAC[0]&1 == 1 || r.MAC == plan.MAC{}) {
		err = fmt.Errorf("%s is not the address of one device", r.MAC)
	}
	if err != nil {
		return badConfig("%s: %s", w.at, err)
	}
	return nil
}

func (m portMapping) port(at string) (plan.Port, *wire.Error) {
	var p plan.Port
	for _, f := range []struct {
		key   string
		value int
		into  *uint16
	}{{"hostPort", m.HostPort, &p.HostPort}, {"containerPort", m.ContainerPort, &p.ContainerPort}} {
		if f.value < 1 || f.value > 65535 {
			return p, badConfig("%s.%s: %d is not between 1 and 65535", at, f.key, f.value)
		}
		*f.into = uint16(f.value)
	}
	protocol := strings.ToLower(m.Protocol)
	if protocol == "" {
		protocol = "tcp"
	}
	if err := p.Protocol.UnmarshalText([]byte(protocol)); err != nil {
		return p, badConfig("%s.protocol: %s", at, err)
	}
	if m.HostIP != "" {
		addr, err := netip.ParseAddr(m.HostIP)
		if err != nil || addr.Zone() != "" {
			return p, badConfig("%s.hostIP: expected an IP address, found %q", at, m.HostIP)
		}
		p.HostIP = addr.Unmap()
	}
	return p, nil
}

// parseArgs reads CNI_ARGS. A key that we do not know is an error, unless IgnoreUnknown says otherwise, as all runtimes
// do: somebody may have asked for an address and mistyped it.
func parseArgs(args string) (map[string]string, *wire.Error) {
	vars := map[string]string{}
	var unknown []string
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, &wire.Error{Code: wire.CodeInvalidEnv, Msg: fmt.Sprintf("CNI_ARGS: expected KEY=VALUE separated by semicolons, found %q", pair)}
		}
		vars[key] = value
		if !slices.Contains([]string{"IP", "MAC", "IgnoreUnknown"}, key) {
			unknown = append(unknown, key)
		}
	}
	if ignore, _ := strconv.ParseBool(vars["IgnoreUnknown"]); len(unknown) > 0 && !ignore {
		return nil, &wire.Error{Code: wire.CodeInvalidEnv, Msg: fmt.Sprintf("CNI_ARGS: unknown keys %q; IgnoreUnknown=1 lets them pass", unknown)}
	}
	return vars, nil
}
