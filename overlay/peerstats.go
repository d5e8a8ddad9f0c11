package overlay

import (
	"maps"
	"slices"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/probe"
)

// registerPeers makes the metrics of peers. They are read from the probes when they are asked for, so that a peer that
// left is gone.
func (o *Overlay) registerPeers() {
	each := func(name, help string, typ stat.Type, value func(s probe.State, p plan.Peer, mtu int, add func(v float64, labels ...stat.Label))) {
		o.deps.Stats.Each("fairlead_overlay_peer_"+name, help, typ, func() (out []stat.Sample) {
			o.eachPeer(func(s probe.State, p plan.Peer, mtu int) {
				value(s, p, mtu, func(v float64, labels ...stat.Label) {
					out = append(out, stat.Sample{Labels: append([]stat.Label{{Name: "peer", Value: s.Name}}, labels...), Value: v})
				})
			})
			return out
		})
	}
	byPath := func(value func(w probe.Way) (float64, bool)) func(probe.State, plan.Peer, int, func(float64, ...stat.Label)) {
		return func(s probe.State, _ plan.Peer, _ int, add func(float64, ...stat.Label)) {
			for _, path := range probe.Paths() {
				if v, ok := value(s.Ways[path]); ok {
					add(v, stat.Label{Name: "path", Value: path.String()})
				}
			}
		}
	}
	each("round_trip_seconds", "Round trip of the last answered probe, from sending a frame to the kernel's taking of the answer.", stat.TypeGauge,
		byPath(func(w probe.Way) (float64, bool) { return w.RTT.Seconds(), w.RTT > 0 }))
	each("probes_total", "Probes sent.", stat.TypeCounter, byPath(func(w probe.Way) (float64, bool) { return float64(w.Sent), w.Sent > 0 }))
	each("probes_lost_total", "Probes that were not answered within 0.8 s, full-size ones and those of a search for the MTU too.", stat.TypeCounter,
		byPath(func(w probe.Way) (float64, bool) { return float64(w.Lost), w.Sent > 0 }))
	each("silent", "1 while three probes or more in a row were lost, by path.", stat.TypeGauge, byPath(func(w probe.Way) (float64, bool) {
		if w.Silent() {
			return 1, true
		}
		return 0, w.Sent > 0
	}))
	each("path", "1 for the path that packets to the peer take.", stat.TypeGauge, func(_ probe.State, p plan.Peer, _ int, add func(float64, ...stat.Label)) {
		add(1, stat.Label{Name: "path", Value: pathOf(p).String()})
	})
	each("mtu_bytes", "Largest packet that the path to the peer carries, as the routes have it.", stat.TypeGauge, func(_ probe.State, p plan.Peer, mtu int, add func(float64, ...stat.Label)) {
		add(float64(mtuOf(p, mtu)))
	})
}

// eachPeer calls f with each peer that is probed, by name, and the MTU of its network; with none while the overlay is
// not up.
func (o *Overlay) eachPeer(f func(s probe.State, p plan.Peer, mtu int)) {
	o.mu.Lock()
	s := o.session
	o.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	networks := s.networks
	s.mu.Unlock()
	peers, mtus := map[string]plan.Peer{}, map[string]int{}
	for _, n := range slices.Backward(networks) {
		for _, p := range n.Peers {
			if len(p.Blocks) > 0 {
				peers[p.Name], mtus[p.Name] = p, n.MTU
			}
		}
	}
	states := s.prober.States()
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if p, ok := peers[name]; ok {
			f(states[name], p, mtus[name])
		}
	}
}
