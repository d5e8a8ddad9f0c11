package plan

import "net/netip"

// Attach gives the steps that bring a container onto its network. This is the hot path: it depends on the attachment
// alone and never on what else is on the host. Routing to the container comes last, so that nothing reaches it half
// done; only the ports of the host follow, which lead there. Steps that are one message each stand together: they go to
// the kernel in one system call.
func Attach(a Attachment, ns Namespace) []Step {
	veth := AddVeth{Link: HostLink(a), Peer: a.IfName, PeerMAC: a.ContainerMAC(), NS: ns}
	inside := []Step{SetLink{Name: "lo", Up: true}}
	for _, addr := range a.Addrs() {
		inside = append(inside, AddAddr{Addr{a.IfName, single(addr)}})
	}
	inside = append(inside, SetLink{Name: a.IfName, Up: true})
	for _, n := range ContainerNeighs(a) {
		inside = append(inside, ReplaceNeigh{n})
	}
	for _, r := range ContainerRoutes(a) {
		inside = append(inside, ReplaceRoute{r})
	}
	steps := []Step{veth}
	if !a.Addr6.IsValid() {
		// Each link with IPv6 has four routes and some neighbours of its own, and the kernel walks all of them whenever a
		// link comes or goes (fib6_ifup, neigh_forced_gc): a thousandth container would wait for those before it.
		steps = append(steps, SetLinkSysctl{"ipv6", a.Link(), "disable_ipv6", "1"})
	}
	steps = append(steps, Inside{ns, inside})
	if len(a.Ports) > 0 {
		steps = append(steps, SetLinkSysctl{"ipv4", a.Link(), "route_localnet", "1"})
	}
	for _, n := range HostNeighs(a) {
		steps = append(steps, ReplaceNeigh{n})
	}
	for _, r := range HostRoutes(a) {
		steps = append(steps, ReplaceRoute{r})
	}
	steps = append(steps, AwaitUp{a.Link()}, Admit{elementsOf(a)})
	if stray := strayFlows(a); len(stray) > 0 {
		steps = append(steps, ForgetFlows{stray})
	}
	return append(steps, SetAlias{a.Link(), a.Alias()})
}

// Detach gives the steps that take a container off its network. Without the host route nothing reaches it, and the
// antispoof rules drop what it sends; the link itself goes later, in a batch.
func Detach(a Attachment) []Step {
	steps := []Step{Dismiss{elementsOf(a)}}
	for _, r := range HostRoutes(a) {
		steps = append(steps, DeleteRoute{r})
	}
	return append(steps, RetireLink{a.Link()})
}

// HostLink is the host end of a's link.
func HostLink(a Attachment) Link {
	return Link{Name: a.Link(), Kind: "veth", MTU: a.MTU, MAC: HostMAC, Up: true, Group: Group}
}

// HostNeighs spare the host the question for the container's MAC.
func HostNeighs(a Attachment) (out []Neigh) {
	for _, addr := range a.Addrs() {
		out = append(out, Neigh{a.Link(), addr, a.ContainerMAC()})
	}
	return out
}

// HostRoutes are the ways to the container.
func HostRoutes(a Attachment) []Route {
	out := []Route{{Dst: single(a.Addr), Dev: a.Link(), Src: a.Node}}
	if a.Addr6.IsValid() {
		out = append(out, Route{Dst: single(a.Addr6), Dev: a.Link(), Src: a.Node6})
	}
	return out
}

// ContainerRoutes are the routes inside the container, for each family: to the gateway, and through it.
func ContainerRoutes(a Attachment) []Route {
	out := through(a.IfName, Gateway, a.Default, a.Reach)
	if a.Addr6.IsValid() {
		out = append(out, through(a.IfName, Gateway6, a.Default6, a.Reach6)...)
	}
	return out
}

func through(dev string, gateway netip.Addr, everything bool, reach netip.Prefix) []Route {
	if everything {
		reach = netip.PrefixFrom(reach.Addr(), 0).Masked()
	}
	return []Route{{Dst: single(gateway), Dev: dev}, {Dst: reach, Dev: dev, Via: gateway}}
}

// ContainerNeighs tell the container its gateway's MAC.
func ContainerNeighs(a Attachment) (out []Neigh) {
	for _, addr := range a.Addrs() {
		out = append(out, Neigh{a.IfName, gateway(addr), HostMAC})
	}
	return out
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
