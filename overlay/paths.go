package overlay

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/probe"
)

// limitsEvery is how often the kernel is asked what it has learnt of the size of packets to peers.
const limitsEvery = time.Minute

// probePeers probes until ctx ends, and moves packets to the paths that carry them.
func (s *session) probePeers(ctx context.Context) error {
	err := s.prober.Run(ctx, func(changed []probe.State) { s.repath(ctx, changed) })
	if err != nil && ctx.Err() == nil {
		s.o.deps.Log.Error("peers are not probed; the paths stay as they are", "err", err)
	}
	return nil
}

// setNetworks works out this host's part in each network, and who is to be probed; at the start adoptPaths does the rest.
// The session is locked.
func (s *session) setNetworks() {
	s.networks = s.o.cfg.networks(s.served(), s.cluster, s.underlay, s.near)
	if s.prober != nil {
		s.probeAll(nil)
	}
}

// probeAll has all peers probed, and takes the paths that are known to work.
func (s *session) probeAll(found map[string]foundPath) {
	s.prober.Set(targets(s.networks, s.limits, found, s.prober.Hops))
	s.networks = choosePaths(s.networks, s.listed, s.prober.State)
}

// adoptPaths begins with the paths that the kernel has: a restart with nothing changed writes nothing.
func (s *session) adoptPaths(have plan.Observed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := pathsOf(s.networks, have, s.underlay.Dev)
	near := map[netip.Addr]plan.MAC{}
	for _, f := range found {
		if f.direct && f.mac != (plan.MAC{}) && s.underlay.Net.Contains(f.addr) {
			near[f.addr] = f.mac // the kernel has forgotten the neighbour, as it does with those that are not used
		}
	}
	maps.Copy(near, s.near)
	if len(near) > len(s.near) {
		s.near = near
		s.setNetworks()
	}
	s.prober = probe.New() // not running yet
	s.probeAll(found)
}

// foundPath is what the kernel has of the paths to one peer.
type foundPath struct {
	addr   netip.Addr
	direct bool
	mac    plan.MAC // that the table takes direct packets from
	mtu    [2]int   // by probe.Path; 0: the device's
}

// pathsOf reads from the routes which path each peer has been reached by, by name.
func pathsOf(networks []plan.Network, have plan.Observed, underlay string) map[string]foundPath {
	routes, macs := map[netip.Prefix]plan.Route{}, map[netip.Prefix][]plan.MAC{}
	for _, r := range have.Routes {
		routes[r.Dst] = r
	}
	if have.Table != nil {
		for _, d := range have.Table.Direct {
			macs[d.Block] = append(macs[d.Block], d.MAC)
		}
	}
	out := map[string]foundPath{}
	for _, n := range networks {
		for _, p := range n.Peers {
			f := out[p.Name]
			f.addr = p.VTEP.Addr
			for _, b := range p.Blocks {
				r := routes[b]
				switch {
				case r.Dev == n.Device():
					f.mtu[probe.VXLAN] = max(f.mtu[probe.VXLAN], r.MTU)
				case r.Dev == underlay && r.Via == f.addr:
					f.direct, f.mtu[probe.Direct] = true, max(f.mtu[probe.Direct], r.MTU)
					if i := slices.IndexFunc(macs[b], func(m plan.MAC) bool { return m != p.VTEP.MAC }); i >= 0 {
						f.mac = macs[b][i]
					}
				}
			}
			out[p.Name] = f
		}
	}
	return out
}

// targets gives whom to probe: each peer once, on the network whose packets are largest. limits has what the kernel
// knows of the largest packets to a peer; found what it had when the agent started; now by which hops it is probed.
func targets(networks []plan.Network, limits map[string]int, found map[string]foundPath, now func(name string) [2]probe.Hop) []probe.Peer {
	var out []probe.Peer
	at := map[string]int{}
	for _, n := range networks {
		out = slices.Grow(out, len(n.Peers)-min(len(out), len(n.Peers)))
		for _, p := range n.Peers {
			node, _ := nodeOf(p.Blocks)
			if !node.IsValid() || !n.Node.Is4() {
				continue
			}
			k, known := at[p.Name]
			if !known {
				k = len(out)
				at[p.Name] = k
				out = append(out, probe.Peer{Name: p.Name, Direct: found[p.Name].direct, MTU: found[p.Name].mtu})
			}
			hop := probe.Hop{Dev: n.Device(), MAC: p.VTEP.MAC, From: n.Node, To: node, Full: n.MTU}
			limit, present := limits[p.Name], now(p.Name)
			if limit > 0 {
				hop.Full = min(n.MTU, limit-vxlanOverhead(p.VTEP.Addr))
			}
			larger(&out[k].Hops[probe.VXLAN], hop, present[probe.VXLAN])
			if p.Near != "" {
				hop.Dev, hop.MAC, hop.Full = p.Near, p.MAC, n.MTU
				if limit > 0 {
					hop.Full = min(n.MTU, limit)
				}
				larger(&out[k].Hops[probe.Direct], hop, present[probe.Direct])
			}
		}
	}
	return out
}

// larger takes a hop of larger packets, and of equal ones that which is probed now: what is known of it stays known when a
// network is made that comes before.
func larger(have *probe.Hop, hop, now probe.Hop) {
	if hop.Full > have.Full || hop.Full == have.Full && hop.Same(now) {
		*have = hop
	}
}

// choosePaths gives networks with the paths that the probes have shown to work.
func choosePaths(networks []plan.Network, listed []Network, state func(name string) probe.State) []plan.Network {
	out := slices.Clone(networks)
	for i, n := range out {
		atOnce := slices.ContainsFunc(listed, func(l Network) bool { return l.Name == n.Name && l.Path == "direct" })
		out[i].Peers = slices.Clone(n.Peers)
		for k := range out[i].Peers {
			p, s := &out[i].Peers[k], state(n.Peers[k].Name)
			p.Direct = p.Near != "" && (s.Proof == probe.Works || s.Trial || atOnce && s.Proof == probe.Untried)
			p.MTU, p.DirectMTU = narrower(s.Ways[probe.VXLAN].MTU, n.MTU), narrower(s.Ways[probe.Direct].MTU, n.MTU)
		}
	}
	return out
}

// narrower gives a path's MTU where it is less than the network's, else 0.
func narrower(mtu, network int) int {
	if mtu < network {
		return mtu
	}
	return 0
}

// repath brings the routes where the probes say. What a route is replaced by counts from the next packet on; what the
// peer sends is taken on both paths, so connections go on.
func (s *session) repath(ctx context.Context, changed []probe.State) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	before := s.networks
	s.networks = choosePaths(before, s.listed, s.prober.State)
	now := s.networks
	s.mu.Unlock()
	steps := plan.Repath(before, now)
	if err := s.kernel.Apply(ctx, steps); err != nil {
		s.newCluster.Store(true) // nobody's damage
		poke(s.repair)
	}
	s.tellPaths(changed, before, now)
}

// tellPaths logs each change once.
func (s *session) tellPaths(changed []probe.State, before, now []plan.Network) {
	for _, c := range changed {
		old, _, _ := peerOf(before, c.Name)
		p, mtu, ok := peerOf(now, c.Name)
		if !ok {
			continue
		}
		if old.Direct != p.Direct {
			s.o.repathed.Inc()
			level := slog.LevelInfo
			if c.Ways[probe.VXLAN].Silent() && c.Proof != probe.Works { // a host that is down is tried again and again
				level = slog.LevelDebug
			}
			s.o.deps.Log.Log(context.Background(), level, "path to a peer changed", "peer", c.Name, "path", pathOf(p).String(), "trial", c.Trial)
		}
		was, is := mtuOf(old, mtu), mtuOf(p, mtu)
		switch {
		case old.Direct != p.Direct || is == was:
		case is < was:
			s.o.deps.Log.Warn("packets of full size do not reach a peer; they are made smaller", "peer", c.Name, "path", pathOf(p).String(), "mtu", is, "before", was)
		default:
			s.o.deps.Log.Info("larger packets reach a peer again", "peer", c.Name, "path", pathOf(p).String(), "mtu", is, "before", was)
		}
	}
}

// peerOf gives a peer on the first network that it has IPv4 addresses of, and that network's MTU.
func peerOf(networks []plan.Network, name string) (p plan.Peer, mtu int, ok bool) {
	for _, n := range networks {
		for _, p := range n.Peers {
			if p.Name == name && slices.ContainsFunc(p.Blocks, func(b netip.Prefix) bool { return b.Addr().Is4() }) {
				return p, n.MTU, true
			}
		}
	}
	return plan.Peer{}, 0, false
}

func pathOf(p plan.Peer) probe.Path {
	if p.Near != "" && p.Direct {
		return probe.Direct
	}
	return probe.VXLAN
}

// mtuOf is what p's path carries, on a network of an MTU.
func mtuOf(p plan.Peer, network int) int {
	mtu := p.MTU
	if pathOf(p) == probe.Direct {
		mtu = p.DirectMTU
	}
	if mtu == 0 {
		return network
	}
	return mtu
}

// followLimits asks the kernel, now and then, what it knows of the size of packets to each peer.
func (s *session) followLimits(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		peers := s.cluster.Peers
		s.mu.Unlock()
		limits := map[string]int{}
		for _, p := range peers {
			if mtu, err := s.kernel.PathMTU(p.Addr); err == nil && mtu > 0 { // no route: the probes tell
				limits[p.Name] = mtu
			}
		}
		s.mu.Lock()
		if !maps.Equal(limits, s.limits) {
			s.limits = limits
			s.prober.Set(targets(s.networks, s.limits, nil, s.prober.Hops))
			s.mu.Unlock()
			s.repath(ctx, nil)
		} else {
			s.mu.Unlock()
		}
		pause(ctx, limitsEvery)
	}
	return nil
}
