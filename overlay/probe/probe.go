// Package probe asks each peer's kernel, again and again, whether the paths to it carry packets, and says what follows:
// which one to take, how large packets may be, and what is wrong.
//
//	echo, TTL 255, DF ── frame on fl-vx42 to the peer's VTEP MAC ══ VXLAN ══╗
//	                  └─ frame on eth0 to the peer's own MAC (direct) ──────╫── peer's kernel answers
//
// A probe is a frame on a chosen device to a chosen MAC, so each path is tried whatever the routes say, and nothing is
// made in the kernel. The peer's agent takes no part: it may be dead. Decisions (way.go, judge.go, round.go, verdict.go)
// are pure and are handed the time; conn.go has the sockets. There is nothing on the host to bring back after a crash.
package probe

import (
	"net/netip"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Path is a way to a peer.
type Path uint8

// The paths.
const (
	VXLAN Path = iota
	Direct
)

// Paths gives both.
func Paths() []Path { return []Path{VXLAN, Direct} }

func (p Path) String() string { return [...]string{"vxlan", "direct"}[p] }

// Hop says where frames for a peer go on one path. The zero Hop is none.
type Hop struct {
	Dev      string
	MAC      plan.MAC
	From, To netip.Addr // our own and the peer's address on a network
	Full     int        // bytes of the largest packet that should pass
}

// Same tells whether what is known of h holds for other.
func (h Hop) Same(other Hop) bool {
	h.Full = other.Full
	return h == other
}

// Peer is one host that is probed.
type Peer struct {
	Name string
	Hops [2]Hop // by Path
	// Direct and MTU are what the kernel had when the agent started: the direct path is in use, and what each carries;
	// 0 when nothing is known to be lost. They count when a peer is new.
	Direct bool
	MTU    [2]int
}

// Proof is what probes have shown of the direct path.
type Proof uint8

// The proofs.
const (
	Untried Proof = iota
	Works
	Fails
)

// State is what is known of one peer.
type State struct {
	Name  string
	Near  bool // there is a direct path
	Proof Proof
	// Trial: nothing answers by VXLAN, and the peer's own probes come directly, so that path is used for some seconds without
	// proof. The peer answers by its own routes, and one of the two has to begin.
	Trial bool
	Ways  [2]Way // by Path
}

// Way is what probes have shown of one path.
type Way struct {
	Sent, Lost uint64
	Streak     int           // answers in a row to small probes; below zero: losses
	RTT        time.Duration // of the last answer; 0: never one
	MTU        int           // bytes of the largest packet that passes
	Full       int           // bytes of the largest that should
}

// Silent tells that nothing passes.
func (w Way) Silent() bool { return w.Streak <= -lossesToFall }

// Problem says what is wrong with the paths to a peer; empty when all is well. direct tells that it is reached plainly.
func (s State) Problem(direct bool) string {
	path := VXLAN
	if direct {
		path = Direct
	}
	used := s.Ways[path]
	switch {
	case s.Ways[VXLAN].Silent() && (!s.Near || s.Ways[Direct].Silent()):
		return "no probe is answered"
	case used.Silent():
		return "no probe is answered by " + path.String()
	case s.Ways[VXLAN].Silent():
		return "no probe is answered by vxlan; it is reached directly"
	case used.MTU < used.Full:
		return "the path carries packets of " + bytes(used.MTU) + " only, not " + bytes(used.Full)
	}
	return ""
}
