package overlay

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/probe"
)

// PeerCheck is what `fairlead net check` shows of one peer.
type PeerCheck struct {
	Peer    string     `json:"peer"`
	Address netip.Addr `json:"address"`
	Path    string     `json:"path"`
	// RTT is that of the path, in seconds; 0: nothing is answered. MTU is the largest packet that it passes.
	RTT      float64         `json:"rtt_seconds,omitempty"`
	MTU      int             `json:"mtu"`
	OK       bool            `json:"ok"` // nothing but notes, if anything
	Findings []probe.Finding `json:"findings"`
}

// UnknownPeerError names the peers that there are.
type UnknownPeerError struct {
	Name  string
	Known []string
}

func (e *UnknownPeerError) Error() string {
	return fmt.Sprintf("no peer %q is known to this host; there are %q", e.Name, e.Known)
}

// checkedAtOnce bounds the peers that are examined side by side: each has two sockets, and some dozens of packets.
const checkedAtOnce = 16

// CheckPeers examines the paths to one peer, or, without a name, to all, sorted by name. It blocks for some seconds for
// each peer that does not answer, sixteen of them side by side.
func (o *Overlay) CheckPeers(ctx context.Context, name string) ([]PeerCheck, error) {
	s, err := o.current(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	networks := s.networks
	subjects := map[string]probe.Peer{}
	for _, p := range targets(networks, nil, nil) { // what should pass, whatever is known to be lost
		subjects[p.Name] = p
	}
	s.mu.Unlock()
	names := slices.Sorted(maps.Keys(subjects))
	if name != "" {
		if !slices.Contains(names, name) {
			return nil, &UnknownPeerError{Name: name, Known: names}
		}
		names = []string{name}
	}
	out := make([]PeerCheck, len(names))
	g, places := agent.NewGroup(ctx), make(chan struct{}, checkedAtOnce)
	for i, name := range names {
		g.Go(func(ctx context.Context) (err error) {
			places <- struct{}{}
			defer func() { <-places }()
			if ctx.Err() == nil {
				out[i], err = s.checkPeer(ctx, networks, subjects[name])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, ctx.Err()
}

func (s *session) checkPeer(ctx context.Context, networks []plan.Network, subject probe.Peer) (PeerCheck, error) {
	p, _, _ := peerOf(networks, subject.Name)
	s.mu.Lock()
	underlay, listed := s.underlay, s.listed
	s.mu.Unlock()
	known := probe.Facts{
		Peer: p.Name, Address: p.VTEP.Addr, Dev: underlay.Dev, Port: s.o.cfg.Port, Overhead: vxlanOverhead(p.VTEP.Addr), Near: p.Near != "",
		Used: pathOf(p), Insists: slices.ContainsFunc(listed, func(n Network) bool { return n.Path == "direct" }),
	}
	if _, err := s.kernel.PathMTU(p.VTEP.Addr); err != nil {
		known.NoRoute = err.Error()
	}
	facts, err := probe.Examine(ctx, subject, known, underlay.MTU)
	if err != nil {
		return PeerCheck{}, fmt.Errorf("check peer %s: %w", p.Name, err)
	}
	if underlay.Net.Contains(p.VTEP.Addr) {
		answers, err := s.kernel.Segment(underlay.Dev, []netip.Addr{p.VTEP.Addr}, nil)
		facts.NoNeighbour = err == nil && len(answers) == 0
	}
	used := facts.Ways[facts.Used]
	c := PeerCheck{Peer: p.Name, Address: p.VTEP.Addr, Path: facts.Used.String(), RTT: used.RTT.Seconds(), MTU: used.MTU, Findings: probe.Verdict(facts)}
	c.OK = !slices.ContainsFunc(c.Findings, func(f probe.Finding) bool { return !f.Note })
	return c, nil
}
