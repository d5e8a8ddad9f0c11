package probe

import (
	"container/heap"
	"net/netip"
	"time"
)

const (
	// perSecond bounds the probes of a host, however many peers there are; burst is what may go at once.
	perSecond = 200
	burst     = 40
	// regular is the part of perSecond that the regular probes of all peers may take; the rest is for what is in doubt.
	regular = 150
)

// Round keeps the judges of all peers, and what is under way. It is pure: the time is handed in. It is not safe for
// concurrent use.
type Round struct {
	direct  map[netip.Addr]*judge // by the address that answers on the direct path
	peers   map[string]*judge
	queue   wakes
	flying  map[uint32]flight
	order   []uint32 // of flying, by time; may have some that have landed
	changed map[string]bool
	number  uint32
	tokens  float64
	filled  time.Time
}

type flight struct {
	to         *judge
	path       Path
	generation int
	ask        ask
	sent       time.Time
}

// Shot is one probe to be sent.
type Shot struct {
	Number uint32
	Hop    Hop
	Size   int // bytes of the IP packet
}

// NewRound makes one without peers.
func NewRound() *Round {
	return &Round{peers: map[string]*judge{}, flying: map[uint32]flight{}, changed: map[string]bool{}, tokens: burst}
}

// Set says who the peers are. Those that are known stay so, and are judged on.
func (r *Round) Set(now time.Time, peers []Peer) {
	named := make(map[string]bool, len(peers))
	for _, p := range peers {
		named[p.Name] = true
		if j := r.peers[p.Name]; j != nil {
			j.set(now, p)
			continue
		}
		r.peers[p.Name] = newJudge(now, p)
	}
	r.queue, r.direct = r.queue[:0], map[netip.Addr]*judge{}
	for name, j := range r.peers {
		if !named[name] {
			delete(r.peers, name)
			continue
		}
		if j.near() {
			r.direct[j.ways[Direct].hop.To] = j
		}
		j.wake, j.at = j.wakes(), len(r.queue)
		if j.changed {
			j.changed, r.changed[name] = false, true
		}
		r.queue = append(r.queue, j)
	}
	heap.Init(&r.queue)
}

// every is the interval of regular probes.
func (r *Round) every() time.Duration {
	return max(often, time.Duration(len(r.peers))*time.Second/regular)
}

// Due gives what is to be sent now.
func (r *Round) Due(now time.Time) (shots []Shot) {
	r.tokens = min(burst, r.tokens+now.Sub(r.filled).Seconds()*perSecond)
	r.filled = now
	for len(r.queue) > 0 && r.tokens >= 1 && !r.queue[0].wake.After(now) {
		j := r.queue[0]
		for path, asks := range j.due(now, r.every()) {
			for _, a := range asks {
				r.number++
				r.flying[r.number] = flight{j, Path(path), j.ways[path].generation, a, now}
				r.order = append(r.order, r.number)
				j.ways[path].Sent++
				r.tokens--
				shots = append(shots, Shot{r.number, j.ways[path].hop, a.size})
			}
		}
		r.fix(j)
	}
	return shots
}

// Heard takes an answer that came at a time; one to nothing that is under way does nothing.
func (r *Round) Heard(now time.Time, number uint32, at time.Time) {
	if f, ok := r.land(number); ok {
		rtt := at.Sub(f.sent)
		if most := now.Sub(f.sent); rtt <= 0 || rtt > most { // the clock was set
			rtt = most
		}
		f.to.answered(now, f.path, f.ask, rtt)
		r.fix(f.to)
	}
}

// Asked takes a peer's own probe, which came by a device: so much is known of the direct path that its packets come.
func (r *Round) Asked(now time.Time, from netip.Addr, dev string) {
	if j := r.direct[from]; j != nil && j.ways[Direct].hop.Dev == dev {
		j.asked = now
	}
}

// Failed takes back a probe that could not be sent: it is lost.
func (r *Round) Failed(now time.Time, number uint32) {
	if f, ok := r.land(number); ok {
		f.to.missed(now, f.path, f.ask)
		r.fix(f.to)
	}
}

// Expire gives up what has been under way for too long.
func (r *Round) Expire(now time.Time) {
	for len(r.order) > 0 {
		if f, ok := r.flying[r.order[0]]; ok && now.Sub(f.sent) < patience {
			return
		}
		r.Failed(now, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *Round) land(number uint32) (flight, bool) {
	f, ok := r.flying[number]
	delete(r.flying, number)
	return f, ok && r.peers[f.to.name] == f.to && f.to.ways[f.path].generation == f.generation
}

func (r *Round) fix(j *judge) {
	j.wake = j.wakes()
	heap.Fix(&r.queue, j.at)
	if j.changed {
		j.changed = false
		r.changed[j.name] = true
	}
}

// Next gives when there is something to do again; zero when there is nobody.
func (r *Round) Next(now time.Time) time.Time {
	var at time.Time
	if len(r.queue) > 0 {
		at = r.queue[0].wake
		if r.tokens < 1 {
			at = later(at, now.Add(time.Second/perSecond))
		}
	}
	for _, number := range r.order {
		if f, ok := r.flying[number]; ok {
			if ends := f.sent.Add(patience); at.IsZero() || ends.Before(at) {
				at = ends
			}
			break
		}
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Changed gives the peers of which something changed that a route depends on, since it was asked last.
func (r *Round) Changed() (out []State) {
	for name := range r.changed {
		if j := r.peers[name]; j != nil {
			out = append(out, j.state())
		}
	}
	clear(r.changed)
	return out
}

// States gives what is known of every peer, by name.
func (r *Round) States() map[string]State {
	out := make(map[string]State, len(r.peers))
	for name, j := range r.peers {
		out[name] = j.state()
	}
	return out
}

// wakes is the heap of judges by when something is due.
type wakes []*judge

func (w wakes) Len() int           { return len(w) }
func (w wakes) Less(i, k int) bool { return w[i].wake.Before(w[k].wake) }
func (w wakes) Swap(i, k int)      { w[i], w[k] = w[k], w[i]; w[i].at, w[k].at = i, k }
func (w *wakes) Push(x any)        { *w = append(*w, x.(*judge)) }
func (w *wakes) Pop() any          { old := *w; j := old[len(old)-1]; *w = old[:len(old)-1]; return j }
