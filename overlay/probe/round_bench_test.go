package probe

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkASecondOf5000Peers is what the agent computes in one second for 5,000 peers that answer: some 200 probes, sent,
// answered and judged. System calls come on top.
func BenchmarkASecondOf5000Peers(b *testing.B) {
	var peers []Peer
	for i := range 5000 {
		peers = append(peers, peer(fmt.Sprintf("web%d", i)))
	}
	r, now := NewRound(), time.Unix(1e9, 0)
	r.Set(now, peers)
	b.ReportAllocs()
	for b.Loop() {
		for end := now.Add(time.Second); now.Before(end); {
			shots := r.Due(now)
			for _, s := range shots {
				r.Heard(now.Add(trip), s.Number, now.Add(trip))
			}
			r.Expire(now)
			r.Changed()
			now = later(r.Next(now), now.Add(time.Millisecond))
		}
	}
}
