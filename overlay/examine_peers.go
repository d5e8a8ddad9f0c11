package overlay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
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
	i := slices.IndexFunc(c.Findings, isFault)
	if i < 0 {
		return seen
	}
	f := c.Findings[i]
	return host.Finding{What: seen.What, Found: f.Hop + ": " + f.Cause, Advice: f.Cure}
}

func isFault(f probe.Finding) bool { return !f.Note }

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
	networks, subjects := s.subjects()
	names := slices.Sorted(maps.Keys(subjects))
	if name != "" {
		if !slices.Contains(names, name) {
			return nil, &UnknownPeerError{Name: name, Known: names}
		}
		names = []string{name}
	}
	out, err := s.checkPeers(ctx, networks, subjects, names)
	if err != nil {
		return nil, err
	}
	return out, ctx.Err()
}

// subjects gives the networks, and by name who can be examined in them: what should pass, whatever is known to be lost.
func (s *session) subjects() (networks []plan.Network, subjects map[string]probe.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	subjects = map[string]probe.Peer{}
	for _, p := range targets(s.networks, nil, nil, s.prober.Hops) {
		subjects[p.Name] = p
	}
	return s.networks, subjects
}

// checkPeers examines peers, and gives what it found until an error; who was not examined has no findings.
func (s *session) checkPeers(ctx context.Context, networks []plan.Network, subjects map[string]probe.Peer, names []string) ([]PeerCheck, error) {
	out := make([]PeerCheck, len(names))
	g, places := agent.NewGroup(ctx), make(chan struct{}, checkedAtOnce)
	for i, name := range names {
		subject, known := subjects[name]
		if !known {
			continue
		}
		g.Go(func(ctx context.Context) (err error) {
			places <- struct{}{}
			defer func() { <-places }()
			if ctx.Err() == nil {
				out[i], err = s.checkPeer(ctx, networks, subject)
			}
			return err
		})
	}
	return out, g.Wait()
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
	next, err := s.kernel.NextHop(p.VTEP.Addr)
	switch {
	case err != nil:
		known.NoRoute = err.Error()
	case next != p.VTEP.Addr:
		known.Gateway = next
	}
	facts, err := probe.Examine(ctx, subject, known, underlay.MTU)
	if err != nil {
		return PeerCheck{}, fmt.Errorf("check peer %s: %w", p.Name, err)
	}
	if facts.Gateway.IsValid() || underlay.Net.Contains(p.VTEP.Addr) {
		answers, err := s.kernel.Segment(underlay.Dev, []netip.Addr{cmp.Or(facts.Gateway, p.VTEP.Addr)}, nil)
		facts.NoNeighbour = err == nil && len(answers) == 0
	}
	used := facts.Ways[facts.Used]
	c := PeerCheck{Peer: p.Name, Address: p.VTEP.Addr, Path: facts.Used.String(), RTT: used.RTT.Seconds(), MTU: used.MTU, Findings: probe.Verdict(facts)}
	c.OK = !slices.ContainsFunc(c.Findings, isFault)
	return c, nil
}

// examineFor bounds how long the doctor looks; who asks him waits for thirty seconds.
const examineFor = 20 * time.Second

// examinePeers gives one finding for each peer with something wrong, by what `net check` finds, and one for all others
// together. It blocks for some seconds when something is; of more peers than are checked at once it tells what the probes say.
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
	networks, subjects := s.subjects()
	checks, _ := s.checkPeers(ctx, networks, subjects, ill[:min(len(ill), checkedAtOnce)]) // as far as it gets in time
	for i, c := range checks {
		out[i] = c.finding(out[i])
	}
	if well > 0 {
		out = append(out, host.Finding{What: "peers", OK: true, Found: fmt.Sprintf("%d reached, %d of them directly", well, direct)})
	}
	return out
}
