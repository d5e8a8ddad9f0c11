package plan

import "net/netip"

// Attach gives the steps that bring a container onto its network. This is the hot path: it depends on the attachment
// alone and never on what else is on the host. Routing to the container comes last, so that nothing reaches it half
// done.
func Attach(a Attachment, ns Namespace) []Step {
	veth := AddVeth{Link: HostLink(a), Peer: a.IfName, PeerMAC: a.ContainerMAC(), NS: ns}
	inside := []Step{
		SetLink{Name: "lo", Up: true},
		AddAddr{Addr{a.IfName, single(a.Addr)}},
		SetLink{Name: a.IfName, Up: true},
		ReplaceNeigh{Neigh{a.IfName, Gateway, HostMAC}},
	}
	for _, r := range ContainerRoutes(a) {
		inside = append(inside, ReplaceRoute{r})
	}
	return []Step{
		veth,
		Inside{ns, inside},
		AwaitUp{a.Link()},
		ReplaceNeigh{HostNeigh(a)},
		ReplaceRoute{HostRoute(a)},
		SetAlias{a.Link(), a.Alias()},
	}
}

// Detach gives the steps that take a container off its network. Without the host route nothing reaches it, and the
// antispoof rule drops what it sends; the link itself goes later, in a batch.
func Detach(a Attachment) []Step {
	return []Step{
		DeleteRoute{HostRoute(a)},
		RetireLink{a.Link()},
	}
}

// HostLink is the host end of a's link.
func HostLink(a Attachment) Link {
	return Link{Name: a.Link(), Kind: "veth", MTU: a.MTU, MAC: HostMAC, Up: true}
}

// HostNeigh spares the host the question for the container's MAC.
func HostNeigh(a Attachment) Neigh { return Neigh{a.Link(), a.Addr, a.ContainerMAC()} }

// HostRoute is the way to the container.
func HostRoute(a Attachment) Route {
	return Route{Dst: single(a.Addr), Dev: a.Link(), Src: a.Node}
}

// ContainerRoutes are the routes inside the container: to the gateway, and through it.
func ContainerRoutes(a Attachment) []Route {
	dst := a.Reach
	if a.Default {
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return []Route{
		{Dst: single(Gateway), Dev: a.IfName},
		{Dst: dst, Dev: a.IfName, Via: Gateway},
	}
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
