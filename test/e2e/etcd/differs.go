package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Network is what a host says of one: `fairlead net ls --json`.
type Network struct {
	Name   string
	CIDR   netip.Prefix
	VNI    uint32
	Device string
	Blocks []netip.Prefix
	Fenced []string
	Peers  []struct {
		Name   string
		Blocks []netip.Prefix
		Path   string
		Silent bool
	}
}

// Networks asks the host's agent.
func (n *Node) Networks(ctx context.Context) ([]Network, error) {
	out, err := n.Fairlead(ctx, "net", "ls", "--json")
	if err != nil {
		return nil, err
	}
	var list []Network
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("%s: read networks: %w: %s", n.Name, err, out)
	}
	n.has = list
	return list, nil
}

// Blocks are what the host held of a network when it was asked last.
func (n *Node) Blocks(network string) []netip.Prefix {
	for _, w := range n.has {
		if w.Name == network {
			return w.Blocks
		}
	}
	return nil
}

// Difference is between what is in the hosts' kernels and what should be there.
type Difference struct {
	Stale   []string // is there, and no living owner implies it
	Missing []string // should be there
	Doubles []string // blocks that two hosts hold, and addresses that two containers have
	Deaf    []string // containers that do not reach another, agents that do not answer, or take one that lives for silent
}

// None tells whether all is as it should be.
func (d Difference) None() bool {
	return len(d.Stale)+len(d.Missing)+len(d.Doubles)+len(d.Deaf) == 0
}

func (d Difference) String() string {
	var b strings.Builder
	for what, lines := range map[string][]string{"stale": d.Stale, "missing": d.Missing, "double": d.Doubles, "deaf": d.Deaf} {
		for _, l := range lines {
			fmt.Fprintf(&b, "%s: %s\n", what, l)
		}
	}
	return b.String()
}

// Settle waits until nothing differs and every container reaches every other, at most so long. What differed last is in
// Awaited.
func (w *World) Settle(ctx context.Context, bound time.Duration) (took time.Duration, d Difference) {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // commands and kernels of others tell us no events
		d = w.Differs(ctx)
		if d.None() {
			d.Deaf, d.Missing = w.unreached(ctx), w.unstored(ctx)
		}
		if took = time.Since(began); d.None() || took > bound || ctx.Err() != nil {
			return took, d
		}
		w.Awaited = d
	}
}

// Differs looks at every host that has joined and whose agent runs. Those whose agent is dead own what they said last.
func (w *World) Differs(ctx context.Context) (d Difference) {
	members := w.members()
	d.Deaf = each(members, func(n *Node) []string {
		if !n.Runs() {
			return nil
		}
		if _, err := n.Networks(ctx); err != nil {
			return []string{err.Error()}
		}
		return nil
	})
	if len(d.Deaf) > 0 {
		return d
	}
	d.Doubles = doubles(members)
	for _, n := range members {
		d.Deaf = append(d.Deaf, n.mistaken(members)...)
	}
	var mu sync.Mutex
	each(members, func(n *Node) []string {
		if !n.Runs() {
			return nil
		}
		have, err := n.kernel(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			d.Deaf = append(d.Deaf, err.Error())
			return nil
		}
		want, may := n.implied(members)
		for _, line := range slices.Sorted(maps.Keys(have)) {
			if !want[line] && !may[line] {
				d.Stale = append(d.Stale, n.Name+": "+line)
			}
		}
		for _, line := range slices.Sorted(maps.Keys(want)) {
			if !have[line] {
				d.Missing = append(d.Missing, n.Name+": "+line)
			}
		}
		return nil
	})
	return d
}

// each does something for all nodes at once.
func each(nodes []*Node, do func(*Node) []string) (lines []string) {
	var wg sync.WaitGroup
	out := make([][]string, len(nodes))
	for i, n := range nodes {
		wg.Go(func() { out[i] = do(n) })
	}
	wg.Wait()
	return slices.Concat(out...)
}

func doubles(members []*Node) (out []string) {
	type held struct {
		who   *Node
		block netip.Prefix
	}
	var all []held
	addrs := map[netip.Addr]string{}
	for _, n := range members {
		for _, w := range n.has {
			for _, b := range w.Blocks {
				for _, h := range all {
					if h.block.Overlaps(b) {
						out = append(out, fmt.Sprintf("%s of %s and %s of %s", h.block, h.who.Name, b, n.Name))
					}
				}
				all = append(all, held{n, b})
			}
		}
		for name, box := range n.Boxes {
			if other, taken := addrs[box.Addr]; taken {
				out = append(out, fmt.Sprintf("%s of %s and %s on %s", box.Addr, other, name, n.Name))
			}
			addrs[box.Addr] = name + " on " + n.Name
		}
	}
	return out
}

// unreached has every container call every other of its network.
func (w *World) unreached(ctx context.Context) []string {
	var all []Box
	for _, n := range w.members() {
		all = slices.AppendSeq(all, maps.Values(n.Boxes))
	}
	return each(w.members(), func(n *Node) []string { return n.unreached(ctx, all) })
}

// mistaken tells whom n takes for silent that is not.
func (n *Node) mistaken(members []*Node) (out []string) {
	for _, w := range n.has {
		for _, p := range w.Peers {
			i := slices.IndexFunc(members, func(m *Node) bool { return m.Called == p.Name })
			if p.Silent && n.hearsStore() && i >= 0 && members[i].hearsStore() {
				out = append(out, n.Name+" takes "+p.Name+" for silent")
			}
		}
	}
	return out
}

func (n *Node) hearsStore() bool { return n.Runs() && !n.Cut && !n.NoStore }

// unstored gives the blocks that a host holds and that etcd does not know to be its, and hosts that etcd knows only by
// another boot, out of a snapshot.
func (w *World) unstored(ctx context.Context) (out []string) {
	text, err := w.ctl(ctx, "get", "--prefix", prefix)
	if err != nil {
		return []string{err.Error()}
	}
	has := func(key, value string) {
		_, record, _ := strings.Cut("\n"+text, "\n"+prefix+key+"\n")
		if record, _, _ = strings.Cut(record, "\n"); !strings.Contains(record, value) {
			out = append(out, fmt.Sprintf("etcd has %q at %s, without %s", record, key, value))
		}
	}
	for _, n := range w.members() {
		if n.hearsStore() {
			has("live/"+n.Called, n.bootID)
		}
		for _, nw := range n.has {
			for _, b := range nw.Blocks {
				has(fmt.Sprintf("blocks/%s/%s-%d", nw.Name, b.Addr(), b.Bits()), fmt.Sprintf(`"holder":%q`, n.Called))
			}
		}
	}
	return out
}
