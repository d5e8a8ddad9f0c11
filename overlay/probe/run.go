package probe

import (
	"context"
	"sync"
	"time"
)

// Prober probes peers as long as Run runs. Set and States are safe for concurrent use, before Run too.
type Prober struct {
	mu    sync.Mutex
	round *Round
	conn  *Conn // nil while not running
}

// New makes a Prober that has nobody to probe.
func New() *Prober { return &Prober{round: NewRound()} }

// Set says who is to be probed.
func (p *Prober) Set(peers []Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.round.Set(time.Now(), peers)
	if p.conn != nil {
		p.conn.Wake()
	}
}

// States gives what is known of each peer, by name.
func (p *Prober) States() map[string]State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.round.States()
}

// State gives what is known of one peer: nothing, when it is not probed.
func (p *Prober) State(name string) State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j := p.round.peers[name]; j != nil {
		return j.state()
	}
	return State{}
}

// Hops gives by which hops a peer is probed, by Path.
func (p *Prober) Hops(name string) (hops [2]Hop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j := p.round.peers[name]; j != nil {
		hops = [2]Hop{j.ways[VXLAN].hop, j.ways[Direct].hop}
	}
	return hops
}

// Run probes until ctx ends, and calls changed when something changed that routes depend on.
func (p *Prober) Run(ctx context.Context, changed func([]State)) error {
	conn, err := Dial()
	if err != nil {
		return err
	}
	p.use(conn)
	defer func() {
		p.use(nil)
		_ = conn.Close()
	}()
	stop := context.AfterFunc(ctx, conn.Wake)
	defer stop()
	next := time.Now()
	for ctx.Err() == nil {
		err := conn.Hear(next, func(h Heard) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if h.Number > 0 {
				p.round.Heard(time.Now(), h.Number, h.At)
			} else {
				p.round.Asked(time.Now(), h.From, h.Dev)
			}
		})
		if err != nil {
			return err
		}
		var news []State
		if news, next = p.turn(conn); len(news) > 0 {
			changed(news)
		}
	}
	return nil
}

func (p *Prober) use(conn *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = conn
}

// atRest is how long Run sleeps when there is nobody; Set wakes it.
const atRest = 10 * time.Second

// turn gives up what has been under way for too long and sends what is due.
func (p *Prober) turn(conn *Conn) (changed []State, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.round.Expire(now)
	for _, s := range p.round.Due(now) {
		if err := conn.Send(s); err != nil {
			p.round.Failed(now, s.Number) // too large for the device, or the device is down: it does not pass
		}
	}
	if next = p.round.Next(now); next.IsZero() || next.Sub(now) > atRest {
		next = now.Add(atRest)
	}
	return p.round.Changed(), next
}
