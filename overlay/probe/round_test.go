package probe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// world is what the network does: whether a probe of that size to a peer passes at a time.
type world func(at time.Duration, name string, p Path, size int) bool

// play lets time pass, from one moment at which something is due to the next.
type play struct {
	*Round
	t      *testing.T
	zero   time.Time
	now    time.Time
	world  world
	sent   []time.Time
	landed []landing
}

type landing struct {
	at     time.Time
	number uint32
}

const trip = 2 * time.Millisecond

func newPlay(t *testing.T, w world, peers ...Peer) *play {
	zero := time.Unix(1e9, 0)
	p := &play{Round: NewRound(), t: t, zero: zero, now: zero, world: w}
	p.filled = zero
	p.Set(zero, peers)
	return p
}

// until goes on to a time.
func (p *play) until(end time.Duration) {
	p.t.Helper()
	for turns := 0; ; turns++ {
		if turns > 1e6 {
			p.t.Fatal("it never sleeps")
		}
		for len(p.landed) > 0 && !p.landed[0].at.After(p.now) {
			p.Heard(p.now, p.landed[0].number, p.landed[0].at)
			p.landed = p.landed[1:]
		}
		p.Expire(p.now)
		for _, s := range p.Due(p.now) {
			p.sent = append(p.sent, p.now)
			f := p.flying[s.Number]
			if p.world(p.now.Sub(p.zero), f.to.name, f.path, s.Size) {
				p.landed = append(p.landed, landing{p.now.Add(trip), s.Number})
			}
		}
		next := p.Next(p.now)
		if len(p.landed) > 0 && p.landed[0].at.Before(next) {
			next = p.landed[0].at
		}
		if next.After(p.zero.Add(end)) || next.IsZero() {
			p.now = p.zero.Add(end)
			return
		}
		p.now = later(next, p.now)
	}
}

func (p *play) at(name string) State { return p.States()[name] }

// when goes on until something is so, and gives when that was.
func (p *play) when(what string, end time.Duration, is func(State) bool) time.Duration {
	p.t.Helper()
	for at := p.now.Sub(p.zero); at <= end; at += 10 * time.Millisecond {
		p.until(at)
		if is(p.at("web2")) {
			return at
		}
	}
	p.t.Fatalf("%s: not until %s: %+v", what, end, p.at("web2"))
	return 0
}

func peer(name string) Peer {
	hop := Hop{From: netip.MustParseAddr("10.42.1.1"), To: netip.MustParseAddr("10.42.2.1"), Full: 1450}
	p := Peer{Name: name, Hops: [2]Hop{hop, hop}}
	p.Hops[VXLAN].Dev, p.Hops[Direct].Dev = "fl-vx42", "eth0"
	return p
}

func works(s State) bool { return s.Proof == Works }

func TestDirectIsTakenWhenProvenLeftWithinFiveSecondsAndTakenAgainEverLater(t *testing.T) {
	t.Parallel()
	up := true
	p := newPlay(t, func(_ time.Duration, _ string, path Path, _ int) bool { return path == VXLAN || up }, peer("web2"))
	if at := p.when("proven", 4*time.Second, works); at < 2*time.Second {
		t.Errorf("proven after %s, that is by fewer than %d answers", at, provenBy)
	}
	var back []time.Duration
	for range 7 {
		up = false
		broke := p.now.Sub(p.zero)
		fell := p.when("broken", broke+5*time.Second, func(s State) bool { return s.Proof == Fails })
		if fell < broke+2*time.Second {
			t.Errorf("left after %s, that is by fewer than %d losses", fell-broke, lossesToFall)
		}
		up = true
		again := p.when("again", fell+10*time.Minute, works)
		back = append(back, (again - fell).Round(time.Second))
	}
	if got := fmt.Sprint(back); got != "[9s 19s 39s 1m19s 2m39s 4m59s 4m59s]" {
		t.Errorf("came back after %s", got)
	}
	p.until(p.now.Sub(p.zero) + steadyAfter + time.Second)
	up = false
	fell := p.when("broken", p.now.Sub(p.zero)+15*time.Second, func(s State) bool { return s.Proof == Fails })
	up = true
	if again := p.when("again", fell+time.Minute, works); again-fell > 15*time.Second {
		t.Errorf("former failures count after %s without one: back after %s", steadyAfter, again-fell)
	}
}

func TestARestartGoesOnWithWhatTheKernelHas(t *testing.T) {
	t.Parallel()
	known := peer("web2")
	known.Direct, known.MTU = true, [2]int{1300, 1350}
	p := newPlay(t, func(time.Duration, string, Path, int) bool { return true }, known)
	p.until(20 * time.Second)
	if changed := p.Changed(); len(changed) > 0 {
		t.Fatalf("changed without need: %+v", changed)
	}
	if s := p.at("web2"); s.Proof != Works || s.Ways[VXLAN].MTU != 1300 || s.Ways[Direct].MTU != 1350 {
		t.Fatalf("%+v", s)
	}
	p.until(lookEvery + 30*time.Second)
	if s := p.at("web2"); s.Ways[VXLAN].MTU != 1450 || s.Ways[Direct].MTU != 1450 {
		t.Fatalf("everything passes, and nobody looked: %+v", s)
	}
}

func TestABlackHoleIsFoundAndMeasuredWithin30Seconds(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 8 {
		narrow := least + random.IntN(1450-least)
		begins := time.Duration(random.Int64N(int64(20 * time.Second)))
		var sent int
		p := newPlay(t, func(at time.Duration, _ string, path Path, size int) bool {
			if path == VXLAN && size > small {
				sent++
			}
			return path == Direct || at < begins || at > time.Minute || size <= narrow
		}, peer("web2"))
		p.until(begins)
		sent = 0
		p.when(fmt.Sprintf("narrowed to %d at %s", narrow, begins), begins+30*time.Second, func(s State) bool { return s.Ways[VXLAN].MTU == narrow })
		if sent > 50 {
			t.Errorf("narrowed to %d: it took %d large probes", narrow, sent)
		}
		if problem := p.at("web2").Problem(false); problem == "" {
			t.Error("nobody is told")
		}
		p.until(begins + 50*time.Second)
		if s := p.at("web2"); s.Ways[VXLAN].MTU != narrow || s.Ways[Direct].MTU != 1450 {
			t.Fatalf("it did not stay so: %+v", s)
		}
		p.when("widened", 6*time.Minute, func(s State) bool { return s.Ways[VXLAN].MTU == 1450 })
	}
}

func TestAPathThatIsDeadIsNotTakenForNarrow(t *testing.T) {
	t.Parallel()
	for _, died := range []time.Duration{5 * time.Second, 15001 * time.Millisecond, 15 * time.Second, 17500 * time.Millisecond} {
		p := newPlay(t, func(at time.Duration, _ string, _ Path, size int) bool {
			return at < died && (at < 10*time.Second || size < 1000)
		}, peer("web2"))
		p.until(time.Minute)
		if s := p.at("web2"); !s.Ways[VXLAN].Silent() || s.Ways[VXLAN].MTU < 999 {
			t.Errorf("died at %s: %+v", died, s)
		}
		if problem := p.at("web2").Problem(false); problem != "no probe is answered" {
			t.Errorf("died at %s: %q", died, problem)
		}
	}
}

// Each answers by its own routes: where VXLAN is blocked and both wait for a proof, none comes.
func TestWhereVXLANIsSilentDirectIsTriedWithoutProof(t *testing.T) {
	t.Parallel()
	var p *play
	asks := func() { p.Asked(p.now, netip.MustParseAddr("10.42.2.1"), "eth0") }
	p = newPlay(t, func(_ time.Duration, _ string, path Path, _ int) bool {
		asks()
		s := p.at("web2")
		return path == Direct && (s.Trial || s.Proof == Works)
	}, peer("web2"))
	if at := p.when("proven", 10*time.Second, works); at < 3*time.Second {
		t.Errorf("after %s", at)
	}
	trials := func(asks func()) (n int) {
		p = newPlay(t, func(time.Duration, string, Path, int) bool { asks(); return false }, peer("web2"))
		before := false
		for at := time.Duration(0); at < 30*time.Minute; at += 100 * time.Millisecond {
			p.until(at)
			s := p.at("web2")
			if s.Trial && !before {
				n++
			}
			before = s.Trial
		}
		return n
	}
	if n := trials(asks); n < 5 || n > 10 {
		t.Errorf("%d trials in half an hour", n)
	}
	if n := trials(func() { p.Asked(p.now, netip.MustParseAddr("10.42.2.1"), "fl-vx42") }); n > 0 {
		t.Errorf("%d trials though nothing comes directly", n)
	}
}

func TestFiveThousandPeersTakeNoMoreThanTheirShare(t *testing.T) {
	t.Parallel()
	for name, passes := range map[string]bool{"all answer": true, "none answers": false} {
		var peers []Peer
		for i := range 5000 {
			peers = append(peers, peer(fmt.Sprintf("web%d", i)))
		}
		p := newPlay(t, func(time.Duration, string, Path, int) bool { return passes }, peers...)
		p.until(2 * time.Minute)
		most := 0
		for from, to := 0, 0; to < len(p.sent); to++ {
			for p.sent[to].Sub(p.sent[from]) > time.Second {
				from++
			}
			most = max(most, to-from+1)
		}
		if most > perSecond+2*burst {
			t.Errorf("%s: %d probes in one second", name, most)
		}
		asked := 0
		for _, s := range p.States() {
			if s.Ways[VXLAN].Sent >= 1 && s.Ways[Direct].Sent >= 1 {
				asked++
			}
		}
		if asked != 5000 {
			t.Errorf("%s: only %d peers were asked", name, asked)
		}
		if len(p.flying) > perSecond {
			t.Errorf("%s: %d are under way", name, len(p.flying))
		}
	}
}

func TestAPeerThatLeftIsForgottenAndOneThatMovedIsJudgedAnew(t *testing.T) {
	t.Parallel()
	p := newPlay(t, func(time.Duration, string, Path, int) bool { return true }, peer("web2"), peer("web3"))
	p.until(10 * time.Second)
	moved := peer("web2")
	moved.Hops[Direct].MAC[0] = 2
	p.Set(p.now, []Peer{moved})
	if n := len(p.States()); n != 1 {
		t.Fatalf("%d peers", n)
	}
	if s := p.at("web2"); s.Proof != Untried || s.Ways[VXLAN].Streak < provenBy {
		t.Fatalf("%+v", s)
	}
	p.until(15 * time.Second)
	if s := p.at("web2"); s.Proof != Works {
		t.Fatalf("%+v", s)
	}
	moved.Hops[Direct] = Hop{}
	p.Set(p.now, []Peer{moved})
	if s := p.at("web2"); s.Near || s.Proof != Untried {
		t.Fatalf("%+v", s)
	}
}

func TestAnAnswerFromWhereAPeerWasDoesNotCount(t *testing.T) {
	t.Parallel()
	p := newPlay(t, func(time.Duration, string, Path, int) bool { return true }, peer("web2"))
	p.until(time.Millisecond) // the first are under way
	moved := peer("web2")
	moved.Hops[Direct].MAC[0] = 2
	p.Set(p.now, []Peer{moved})
	for range 2 { // both paths
		p.now = p.now.Add(trip)
		p.Heard(p.now, p.landed[0].number, p.now)
		p.landed = p.landed[1:]
	}
	if s := p.at("web2"); s.Ways[Direct].Streak != 0 || s.Ways[VXLAN].Streak != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestAnEchoIsReadAgain(t *testing.T) {
	t.Parallel()
	m := mark{1, 2, 3, 4, 5, 6, 7, 8}
	for _, size := range []int{0, small, 577, 1450} {
		b := echo(make([]byte, 2000), Shot{Number: 70000, Hop: peer("web2").Hops[VXLAN], Size: size}, m)
		if _, ok := answer(b, m); ok || !request(b) {
			t.Errorf("size %d: a request was taken for an answer", size)
		}
		if len(b)%2 == 0 && checksum(b[ipLen:]) != 0 {
			t.Errorf("size %d: the checksum is wrong", size)
		}
		b[ipLen] = echoReply
		if n, ok := answer(b, m); !ok || n != 70000 || checksum(b[:ipLen]) != 0 {
			t.Errorf("size %d: read %d, %v", size, n, ok)
		}
		for i := range len(b) {
			answer(b[:i], m) // does not panic
			request(b[:i])
		}
	}
	if _, ok := answer(echo(make([]byte, 200), Shot{Hop: peer("web2").Hops[VXLAN]}, mark{}), m); ok {
		t.Error("another's echo was taken for ours")
	}
}
