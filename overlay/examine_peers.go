package overlay

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/host"
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

// finding is what is wrong with the peer, with its hop and cure; seen, when nothing is any more.
func (c PeerCheck) finding(seen host.Finding) host.Finding {
	i := slices.IndexFunc(c.Findings, func(f probe.Finding) bool { return !f.Note })
	if i < 0 {
		return seen
	}
	f := c.Findings[i]
	return host.Finding{What: seen.What, Found: f.Hop + ": " + f.Cause, Advice: f.Cure}
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
	for _, p := range targets(networks, nil, nil, s.prober.Hops) { // what should pass, whatever is known to be lost
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
	next, err := s.kernel.NextHop(p.VTEP.Addr)
	if behind := err == nil && next != p.VTEP.Addr; behind || err == nil && underlay.Net.Contains(p.VTEP.Addr) {
		if behind {
			facts.Gateway = next
		}
		answers, err := s.kernel.Segment(underlay.Dev, []netip.Addr{next}, nil)
		facts.NoNeighbour = err == nil && len(answers) == 0
	}
	used := facts.Ways[facts.Used]
	c := PeerCheck{Peer: p.Name, Address: p.VTEP.Addr, Path: facts.Used.String(), RTT: used.RTT.Seconds(), MTU: used.MTU, Findings: probe.Verdict(facts)}
	c.OK = !slices.ContainsFunc(c.Findings, func(f probe.Finding) bool { return !f.Note })
	return c, nil
}

// examineFor bounds how long the doctor looks; who asks him waits for thirty seconds.
const examineFor = 20 * time.Second

// examinedAtOnce bounds the peers of one examination whose paths are looked into; of the others what the probes say is told.
const examinedAtOnce = 16

// examinePeers gives one finding for each peer with something wrong, by what `net check` finds, and one for all others
// together. It blocks for some seconds when something is.
func (s *session) examinePeers() (out []host.Finding) {
	well, direct := 0, 0
	var ill []string
	s.o.eachPeer(func(st probe.State, p plan.Peer, _ int) {
		if problem := st.Problem(pathOf(p) == probe.Direct); problem != "" {
			ill = append(ill, st.Name)
			out = append(out, host.Finding{What: "peer " + st.Name, Found: problem, Advice: "fairlead net check " + st.Name})
			return
		}
		well++
		if pathOf(p) == probe.Direct {
			direct++
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), examineFor)
	defer cancel()
	var all sync.WaitGroup
	for i, name := range ill[:min(len(ill), examinedAtOnce)] {
		all.Go(func() {
			if c, err := s.o.CheckPeers(ctx, name); err == nil {
				out[i] = c[0].finding(out[i])
			}
		})
	}
	all.Wait()
	if well > 0 {
		out = append(out, host.Finding{What: "peers", OK: true, Found: fmt.Sprintf("%d reached, %d of them directly", well, direct)})
	}
	return out
}
