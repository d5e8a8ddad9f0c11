//go:build kernel

package restart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/cni"
)

const (
	fullRate  = 10000 // UDP packets a second
	leastRate = 500   // below it a test would say little
	// away is how long the host is without an agent, beside its start.
	away = 200 * time.Millisecond
	// after is how long an agent is watched after its READY.
	after = time.Second
)

// trip is one way for an agent to go and come back.
type trip struct {
	name    string
	version string
	prepare func() // while no agent runs
	silent  bool   // nothing may be written to the kernel
	status  string // what `fairlead status` says afterwards
	said    string // what the agent must have said
}

func TestTrafficPassesWhateverHappensToTheAgent(t *testing.T) {
	w := newWorld(t)
	stateDir := filepath.Join(w.Dir, "state")
	const suite = "overlay:\n  networks:\n    - {name: suite, cidr: 10.42.0.0/16, vni: 42}\n"
	w.configure(stateDir, suite)
	w.start("one")
	web, err := w.attach("web", map[string]any{"portMappings": []map[string]any{
		{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 18053, "containerPort": 53, "protocol": "udp"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	job, err := w.attach("job", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{world: w, udp: sendPackets(t, w.outside, cni.Uplink+":18053", web, 53)}
	l.streams = []*stream{
		openStream(t, "TCP through the host port", w.outside, cni.Uplink+":18080", web, 80),
		openStream(t, "TCP outward", job, outsideAddr+":9000", w.outside, 9000),
	}
	if in, out := l.streams[0].seenAs, l.streams[1].seenAs; in != outsideAddr || out != cni.Uplink {
		t.Fatalf("the host port shows the client as %s, the masquerade as %s", in, out)
	}
	w.trusted()
	l.calibrate()
	for _, c := range []trip{
		{name: "nothing changed", version: "one", silent: true, status: "one suite=2/65531"},
		{name: "changed configuration", version: "one", status: "one suite=2/65531 more=0/65533 extra", prepare: func() {
			w.configure(stateDir, suite+"    - {name: more, cidr: 10.43.0.0/16, vni: 43}\nlogship:\n  sinks:\n    - {name: extra, type: file, path: "+w.Dir+"/extra.log}\n")
		}},
		{name: "another build", version: "two", silent: true, status: "two suite=2/65531 more=0/65533 extra"},
		{name: "torn journal", version: "two", silent: true, status: "two suite=2/65531 more=0/65533 extra", said: "torn record", prepare: func() {
			cutTail(t, filepath.Join(stateDir, "overlay/journal"))
		}},
	} {
		if l.survive(c); t.Failed() {
			return
		}
	}
}

// load is the traffic of the test.
type load struct {
	*world
	udp     *packets
	streams []*stream
}

// calibrate finds the greatest rate at which the machine loses nothing while the agent stands.
func (l *load) calibrate() {
	l.t.Helper()
	for rate := int64(fullRate); rate >= leastRate; rate /= 2 {
		l.udp.rate.Store(rate)
		if sent, lost := l.during(func() { time.Sleep(time.Second) }); lost == 0 && sent > 0 {
			return
		}
	}
	l.t.Fatal("packets are lost at every rate while nothing happens to the agent")
}

// during gives how many packets were sent while f ran, and how many of those were lost or refused.
func (l *load) during(f func()) (sent, lost int) {
	from, refused := l.udp.sent.Load(), l.udp.refused.Load()
	f()
	to := l.udp.sent.Load()
	return int(to - from), l.udp.lost(from, to) + int(l.udp.refused.Load()-refused)
}

// survive takes the agent through a trip, and then the same time without one. Where the machine loses packets in the
// second, the rate is lowered and both begin again.
func (l *load) survive(c trip) {
	t := l.t
	t.Helper()
	for {
		var j journey
		sent, lost := l.during(func() { j = l.travel(c) })
		control, controlLost := l.during(func() { time.Sleep(j.took) })
		t.Logf("%s, %d packets/s: %d sent in %.2f s, %d lost; control %d sent, %d lost; start to READY %d ms; %d events; TCP records %d and %d; %d new connections, the longest took %.1f ms",
			c.name, l.udp.rate.Load(), sent, j.took.Seconds(), lost, control, controlLost, j.up.Milliseconds(), len(j.events),
			l.streams[0].echoed.Load(), l.streams[1].echoed.Load(), j.knocks.made, j.knocks.longest.Seconds()*1000)
		l.check(c, j)
		switch {
		case t.Failed() || lost == 0:
			return
		case controlLost == 0 || l.udp.rate.Load() <= leastRate:
			t.Fatalf("%s: %d of %d packets were lost, %d of %d without a restart", c.name, lost, sent, controlLost, control)
		}
		l.udp.rate.Store(l.udp.rate.Load() / 2)
	}
}

// journey is how a trip went.
type journey struct {
	took, up time.Duration // up: from the start to READY
	events   []string      // what was written to the kernel
	knocks   knocks        // through the host port
}

// travel kills the agent, starts it again and waits for a while.
func (l *load) travel(c trip) (j journey) {
	l.t.Helper()
	m, began := l.watch(c.silent), time.Now()
	done, knocked := make(chan struct{}), make(chan knocks, 1)
	go func() { knocked <- knock(l.outside, cni.Uplink+":18080", done) }()
	defer func() {
		close(done)
		j.knocks = <-knocked
	}()
	l.kill()
	if c.prepare != nil {
		c.prepare()
	}
	time.Sleep(away) // traffic passes meanwhile
	j.up = l.start(c.version)
	time.Sleep(after) // what it does late must be seen, too
	j.took, j.events = time.Since(began), m.end()
	return j
}

func (l *load) check(c trip, j journey) {
	t := l.t
	t.Helper()
	events := j.events
	if j.knocks.err != nil || j.knocks.made == 0 {
		t.Errorf("%s: %d new connections through the host port: %v", c.name, j.knocks.made, j.knocks.err)
	}
	for _, s := range l.streams {
		if err := s.whole(); err != nil {
			t.Error(err)
		}
	}
	if n := l.udp.repeated(); n > 0 {
		t.Errorf("%d packets came twice", n)
	}
	if got := l.status().line(); got != c.status {
		t.Errorf("status: %s\nwant:   %s", got, c.status)
	}
	if !strings.Contains(l.agent.Said(), c.said) {
		t.Errorf("the agent did not say %q:\n%s", c.said, l.agent.Said())
	}
	if c.silent && len(events) > 0 {
		t.Errorf("%s: the start wrote to the kernel:\n%s", c.name, strings.Join(events, "\n"))
	}
	for _, fault := range blinks(events) {
		t.Errorf("%s: the start took something away: %s", c.name, fault)
	}
	if !c.silent && len(events) == 0 {
		t.Error("the monitors saw nothing of the new network")
	}
}

// blinks gives what no start may do while containers talk: take a link, an address, a route or a neighbour away, or
// touch a container's. Whether the table was replaced at one stroke is for the traffic to say.
func blinks(events []string) (faults []string) {
	for _, e := range events {
		if strings.HasPrefix(e, "[") && (strings.Contains(e, "Deleted") || strings.Contains(e, "10.42.")) {
			faults = append(faults, e)
		}
	}
	return faults
}

// cutTail cuts some bytes off the last record of a journal, as a crash in the middle of a write would.
func cutTail(t *testing.T, path string) {
	t.Helper()
	const cut = 9
	st, err := os.Stat(path)
	if err == nil && st.Size() < 2*cut {
		err = fmt.Errorf("%s has only %d bytes", path, st.Size())
	}
	if err == nil {
		err = os.Truncate(path, st.Size()-cut)
	}
	if err != nil {
		t.Fatal(err)
	}
}
