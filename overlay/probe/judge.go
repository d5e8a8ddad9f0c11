package probe

import "time"

const (
	// provenBy is how many answers in a row prove a direct path that has not failed yet; provenAgainBy one that has,
	// and twice as many each time that it fails again soon, up to provenAtMostBy: five minutes.
	provenBy       = 3
	provenAgainBy  = 10
	provenAtMostBy = 300
	// steadyAfter is how long a direct path has held when its former failures are forgotten.
	steadyAfter = 5 * time.Minute
	// trialFor is how long a direct path is used without proof: when nothing answers by VXLAN, and the peer's own probes
	// come directly. Trials are trialGap apart at first, then twice as long.
	trialFor  = 8 * time.Second
	askedFor  = 30 * time.Second // how long a peer's own probe counts
	trialGap  = 30 * time.Second
	trialMost = 5 * time.Minute
)

// judge decides about one peer.
type judge struct {
	name       string
	ways       [2]way
	proof      Proof
	since      time.Time // of the proof
	need       int       // answers in a row that prove the direct path
	asked      time.Time // when the peer's own probe came by the direct path
	trialUntil time.Time
	nextTrial  time.Time
	gap        time.Duration
	at         int       // in the heap
	wake       time.Time // when something may be due
	changed    bool
}

func newJudge(now time.Time, p Peer) *judge {
	j := &judge{name: p.Name, need: provenBy, gap: trialGap}
	j.set(now, p)
	for i := range j.ways {
		if mtu := p.MTU[i]; mtu > 0 {
			j.ways[i].MTU = min(mtu, j.ways[i].Full)
			j.ways[i].nextLook = now.Add(lookEvery)
		}
	}
	if p.Direct && j.near() {
		j.proof, j.since = Works, now
	}
	return j
}

// set takes over where the peer is. What was known of a path that has changed is forgotten.
func (j *judge) set(now time.Time, p Peer) {
	for i, hop := range p.Hops {
		w := &j.ways[i]
		if w.hop.Same(hop) {
			w.resize(hop.Full)
			continue
		}
		*w = way{hop: hop, Way: Way{MTU: hop.Full, Full: hop.Full}, generation: w.generation + 1, next: now, nextFull: now}
		if Path(i) == Direct {
			j.prove(now, Untried)
		}
	}
}

func (j *judge) near() bool { return j.ways[Direct].hop.Dev != "" }

func (j *judge) state() State {
	s := State{Name: j.name, Near: j.near(), Proof: j.proof, Trial: !j.trialUntil.IsZero()}
	for i := range j.ways {
		s.Ways[i] = j.ways[i].Way
	}
	return s
}

// due gives what is to be sent on each path.
func (j *judge) due(now time.Time, every time.Duration) (asks [2][]ask) {
	j.try(now)
	for i := range j.ways {
		if w := &j.ways[i]; w.hop.Dev != "" {
			asks[i] = w.due(now, j.interval(Path(i), every))
		}
	}
	return asks
}

// interval is short where the next answers decide something.
func (j *judge) interval(p Path, every time.Duration) time.Duration {
	w, used := &j.ways[p], p == Direct == (j.proof == Works)
	switch {
	case w.Streak <= -giveUp:
		return max(every, seldom)
	case w.Streak < 0 || p == Direct && j.proof != Works || w.Streak < provenBy:
		return often
	case !used:
		return max(every, seldom)
	}
	return every
}

func (j *judge) wakes() time.Time {
	at := j.ways[VXLAN].wakes()
	if d := &j.ways[Direct]; j.near() && d.wakes().Before(at) {
		at = d.wakes()
	}
	if !j.trialUntil.IsZero() && j.trialUntil.Before(at) {
		at = j.trialUntil
	}
	return at
}

func (j *judge) answered(now time.Time, p Path, a ask, rtt time.Duration) {
	w := &j.ways[p]
	before := w.MTU
	w.answered(now, a, rtt)
	j.changed = j.changed || w.MTU != before
	if p == Direct && j.proof != Works && w.Streak >= j.need {
		j.prove(now, Works)
	}
}

func (j *judge) missed(now time.Time, p Path, a ask) {
	w := &j.ways[p]
	before := w.MTU
	w.missed(now, a)
	j.changed = j.changed || w.MTU != before
	if p != Direct || !w.Silent() || j.proof == Fails {
		return
	}
	if j.proof == Works {
		j.need = min(max(provenAgainBy, 2*j.need), provenAtMostBy)
		if now.Sub(j.since) >= steadyAfter {
			j.need = provenAgainBy
		}
	}
	j.prove(now, Fails)
}

func (j *judge) prove(now time.Time, p Proof) {
	if j.proof != p {
		j.proof, j.since, j.changed = p, now, true
		j.trialUntil = time.Time{}
	}
}

// try begins and ends trials of the direct path.
func (j *judge) try(now time.Time) {
	needed := j.near() && j.proof != Works && j.ways[VXLAN].Silent() && now.Sub(j.asked) < askedFor
	switch {
	case !j.trialUntil.IsZero() && (!needed || !now.Before(j.trialUntil)):
		j.trialUntil, j.changed = time.Time{}, true
	case needed && j.trialUntil.IsZero() && !now.Before(j.nextTrial):
		j.trialUntil, j.changed = now.Add(trialFor), true
		j.nextTrial = j.trialUntil.Add(j.gap)
		j.gap = min(2*j.gap, trialMost)
	case !needed && j.ways[VXLAN].Streak >= provenAgainBy:
		j.gap, j.nextTrial = trialGap, time.Time{}
	}
}
