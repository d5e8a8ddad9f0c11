package store

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// node is one node's part in the lease protocol. It is pure: told what the store says, it says what to write next.
type node struct {
	self  Identity
	mem   memory
	wants Wants
	// claims are those that wait, in their order.
	claims []Claim
	fresh  func() string // a random word

	seen    map[string]bool // networks that were there since the start, in the epoch seenIn
	seenIn  string
	session int64 // revision of our key in live/; 0 while not registered
	leaving bool  // what is ours is being given back
}

// step is what a node does next: a write, or nothing while it waits for news, and why it has less than it wants.
type step struct {
	txn     *Txn
	refused bool // somebody else lives by our name: nothing is ours
	problem string
	gives   []string        // leases that the write gives back: they are not ours from before it on
	answers map[Claim]error // to claims; nil: it is ours
}

// mine tells whether a lease is ours: of our name, and written by us or by what we were before the last start.
func (n *node) mine(l Lease) bool {
	return l.Holder == n.self.Name && (l.By == n.self.by() || l.By == n.mem.By)
}

// next decides. n has learnt v, unless v is restored.
func (n *node) next(v *view) step {
	if err := v.item(epochKey).err; err != nil {
		return step{problem: fmt.Sprintf("the store's record %s cannot be used: %v", epochKey, err)}
	}
	if why := n.mem.restored(v); why != "" {
		return step{txn: n.raise(v, why)}
	}
	if n.leaving && v.mod(liveDir+n.self.Name) == 0 {
		st := n.leave(v)
		st.problem = "this node has left; it joins again when the agent starts"
		return st
	}
	if !n.isRegistered(v) {
		return n.register(v)
	}
	if n.leaving {
		return n.leave(v)
	}
	for _, decide := range []func(*view) *Txn{n.network, n.assert, n.use} {
		if t := decide(v); t != nil {
			return step{txn: t}
		}
	}
	st := n.claim(v)
	if st.txn == nil {
		st.txn, st.gives = n.give(v)
	}
	if st.txn == nil {
		st.txn, st.problem = n.lease(v)
	}
	return st
}

// settle notes, once all that we hold is in the store in our name, that it is ours from now on alone.
func (n *node) settle(v *view) (promise bool) {
	if n.mem.By == n.self.by() || n.mem.restored(v) != "" || !n.isRegistered(v) || n.assert(v) != nil {
		return false
	}
	n.mem.By = n.self.by()
	return true
}

// sameEpoch is a condition of every write: the epoch is the one that we know.
func sameEpoch(v *view) Cond { return v.same(epochKey) }

func (n *node) isRegistered(v *view) bool {
	key := liveDir + n.self.Name
	there, ok := get[Identity](v, key)
	return ok && n.session != 0 && v.mod(key) == n.session && there.by() == n.self.by()
}

// registered are the conditions of every write for this node.
func (n *node) registered(v *view) []Cond {
	return []Cond{sameEpoch(v), v.same(liveDir + n.self.Name)}
}

// raise begins a new epoch: all leases after it have higher fences than any before, and for one grace period no new
// ones are given, so that those who hold blocks that the store has forgotten can say so.
func (n *node) raise(v *view, why string) *Txn {
	e, _ := get[epochRecord](v, epochKey)
	next := epochRecord{Epoch: e.Epoch + 1, Token: n.fresh(), Cluster: v.cluster}
	next.Lineage = cmp.Or(e.Lineage, n.mem.Lineage, next.Token)
	if next.Lineage == n.mem.Lineage {
		next.Epoch = max(e.Epoch, n.mem.Epoch) + 1
	}
	return &Txn{
		Why: fmt.Sprintf("raise the epoch to %d: %s", next.Epoch, why),
		If:  []Cond{sameEpoch(v)},
		Then: []Write{
			{Key: epochKey, Value: encode(next)},
			{Key: graceKey, Value: encode(graceRecord{next.Epoch}), Life: InGrace},
		},
	}
}

// register makes our key in live/. Another living machine's is left alone; an earlier one of ours is replaced.
func (n *node) register(v *view) step {
	key := liveDir + n.self.Name
	there := v.item(key)
	if there.mod != 0 {
		other, ok := there.rec.(Identity)
		other.Name = n.self.Name
		switch {
		case !ok:
			return step{refused: true, problem: fmt.Sprintf("the store's record %s cannot be used: %v", key, there.err)}
		case other.by() != n.self.by():
			return step{refused: true, problem: fmt.Sprintf("another living machine is registered as %s; this one is %s; give one of them its own node.name", other, n.self)}
		}
	}
	t := &Txn{
		Why:  "register " + n.self.Name,
		If:   []Cond{sameEpoch(v), v.same(key)},
		Then: []Write{{Key: key, Value: encode(n.self), Life: InSession}},
	}
	was, _ := get[Identity](v, nodesDir+n.self.Name)
	if was.Name = n.self.Name; was != n.self {
		t.Then = append(t.Then, Write{Key: nodesDir + n.self.Name, Value: encode(n.self)})
	}
	return step{txn: t}
}

// network makes the networks that are wanted and are not there, and those that a restored store has lost. What was there
// and has gone was removed by somebody.
func (n *node) network(v *view) *Txn {
	if n.seen == nil || n.seenIn != n.mem.Token {
		n.seen, n.seenIn = map[string]bool{}, n.mem.Token // what a restored store does not have was not removed
	}
	for name := range v.dirs[networksDir] {
		n.seen[name] = true
	}
	want := slices.DeleteFunc(slices.Clone(n.wants.Networks), func(w Network) bool { return n.seen[w.Name] })
	for _, name := range slices.Sorted(maps.Keys(n.mem.Lost)) {
		want = append(want, n.mem.Networks[name])
	}
	for _, w := range want {
		if v.mod(networksDir+w.Name) != 0 || n.clash(v, w) != "" || n.mem.Lost[w.Name] && !n.mem.holdsIn(w.Name, n.self.Name) {
			continue
		}
		return &Txn{
			Why:  "make network " + w.Name,
			If:   append(n.registered(v), Cond{Key: networksDir, Since: v.rev}, Cond{Key: networksDir + w.Name}),
			Then: []Write{{Key: networksDir + w.Name, Value: encode(w)}},
		}
	}
	return nil
}

// clash names the network of the store that has something of w.
func (n *node) clash(v *view, w Network) string {
	for _, there := range v.networks() {
		if there.VNI == w.VNI || there.CIDR.Overlaps(w.CIDR) || there.CIDR6.IsValid() && w.CIDR6.IsValid() && there.CIDR6.Overlaps(w.CIDR6) {
			return there.Name
		}
	}
	return ""
}

// assert writes the leases that we hold and that the store does not have from us, in this boot and epoch.
func (n *node) assert(v *view) *Txn {
	e, _ := get[epochRecord](v, epochKey)
	for _, key := range slices.Sorted(maps.Keys(n.mem.Leases)) {
		l := n.mem.Leases[key]
		if l.Holder != n.self.Name || l.Giving || v.item(key).err != nil {
			continue
		}
		if now, ok := v.lease(key); ok && now.Fence == l.Fence && l.By == n.self.by() && l.Fence.Epoch == e.Epoch {
			continue
		}
		if _, _, there := v.network(l.Network); there {
			return n.take(v, "assert", l.Network, l.Block, l.For)
		}
	}
	return nil
}

func (n *node) take(v *view, why, network string, b netip.Prefix, whose string) *Txn {
	e, _ := get[epochRecord](v, epochKey)
	key := blockKey(network, b)
	r := n.mem.Leases[key].next(n.self.Name, n.self.by(), e.Epoch, false)
	r.For = whose
	return &Txn{
		Why:  fmt.Sprintf("%s %s of %s", why, b, network),
		If:   append(n.registered(v), v.same(key), v.same(networksDir+network)),
		Then: []Write{{Key: key, Value: encode(r)}},
	}
}

// use says which networks have containers here: none of these can be removed.
func (n *node) use(v *view) *Txn {
	for _, w := range v.networks() {
		name, key := w.Name, usesDir+w.Name+"/"+n.self.Name
		want, have := slices.Contains(n.wants.Uses, name), v.mod(key) != 0
		if want == have {
			continue
		}
		t := &Txn{Why: fmt.Sprintf("use of %s is %t", name, want), If: append(n.registered(v), v.same(networksDir+name)), Then: []Write{{Key: key}}}
		if want {
			t.Then[0].Value = encode(useRecord{})
		}
		return t
	}
	return nil
}

// lease takes a block where there are fewer than wanted.
func (n *node) lease(v *view) (t *Txn, problem string) {
	var problems []string
	for _, w := range v.networks() {
		name := w.Name
		for cidr, bits := range w.cidrs() {
			want := 1
			if cidr.Addr().Is4() {
				want = max(1, n.wants.Blocks[name])
			}
			if n.held(name, cidr, bits) >= want {
				continue
			}
			if v.grace() {
				problems = append(problems, fmt.Sprintf("network %s: the store's epoch has just begun; blocks are leased when all hosts have had time to say what they hold", name))
				continue
			}
			b, ok := candidate(n.self.Name, cidr, bits, func(b netip.Prefix) bool { return !w.has(b) || n.taken(v, name, b) })
			if !ok {
				problems = append(problems, fmt.Sprintf("network %s: all %d blocks of %s are held; `fairlead net forget-node` gives a dead node's back", name, w.leased(cidr, bits), cidr))
				continue
			}
			t := n.take(v, "lease", name, b, "")
			t.If = append(t.If, Cond{Key: graceKey})
			return t, ""
		}
	}
	return nil, strings.Join(problems, "; ")
}

// held counts the blocks of a length.
func (n *node) held(network string, cidr netip.Prefix, bits int) (count int) {
	for _, l := range n.mem.Leases {
		if l.Network == network && l.Holder == n.self.Name && l.Block.Bits() == bits && cidr.Contains(l.Block.Addr()) {
			count++
		}
	}
	return count
}

// taken tells whether a block has a holder, as the store says or as we remember.
func (n *node) taken(v *view, network string, b netip.Prefix) bool {
	key := blockKey(network, b)
	return n.mem.Leases[key].Holder != "" || v.item(key).err != nil
}

// leave gives everything back, some at a time; without a write when nothing is left.
func (n *node) leave(v *view) step {
	st := step{txn: release(v, n.mem.Leases, n.self.Name, n.self.by(), n.registered(v), liveDir+n.self.Name)}
	if st.txn == nil {
		return st
	}
	for _, w := range st.txn.Then {
		if l := n.mem.Leases[w.Key]; l.Holder == n.self.Name && !l.Giving {
			st.gives = append(st.gives, w.Key)
		}
	}
	return st
}

// releaseAtOnce bounds the writes of a transaction, each of which has two conditions; etcd takes 128 of either by default
// (--max-txn-ops).
const releaseAtOnce = 50

// release gives a node's blocks back, those too that only we remember, and then forgets the node. by is the node itself;
// empty: it may not know. also are keys to be deleted with it.
func release(v *view, known map[string]Lease, name, by string, conds []Cond, also ...string) *Txn {
	e, _ := get[epochRecord](v, epochKey)
	held := map[string]bool{}
	leases := map[string]Lease{}
	for key, l := range known {
		held[key] = l.Holder == name && v.mod(networksDir+l.Network) != 0 && v.item(key).err == nil
		leases[key] = l
	}
	for rest := range v.dirs[blocksDir] {
		key := blocksDir + rest
		if l, ok := v.lease(key); ok && l.Fence.Compare(known[key].Fence) >= 0 {
			held[key], leases[key] = l.Holder == name, l.learntAfter(known[key])
		}
	}
	t := &Txn{Why: "give back what " + name + " holds", If: conds}
	for _, key := range slices.Sorted(maps.Keys(held)) {
		if held[key] && len(t.Then) < releaseAtOnce {
			t.If = append(t.If, v.same(key))
			t.Then = append(t.Then, Write{Key: key, Value: encode(leases[key].next("", by, e.Epoch, by != ""))})
		}
	}
	if len(t.Then) == releaseAtOnce {
		return t
	}
	for _, rest := range slices.Sorted(maps.Keys(v.dirs[usesDir])) {
		if strings.HasSuffix(rest, "/"+name) && len(t.Then) < releaseAtOnce {
			t.Then = append(t.Then, Write{Key: usesDir + rest})
		}
	}
	if len(t.Then) >= releaseAtOnce {
		return t
	}
	for _, key := range append([]string{nodesDir + name}, also...) {
		if v.mod(key) != 0 {
			t.Then = append(t.Then, Write{Key: key})
		}
	}
	if len(t.Then) == 0 {
		return nil
	}
	return t
}

// clusterOf is what the node knows, whether or not the store answers.
func (n *node) clusterOf(live func(name string) bool, st step) Cluster {
	c := Cluster{Self: Node{Name: n.self.Name, Addr: n.self.Addr}, Problem: st.problem, Networks: []Network{}}
	blocks, lost := map[string][]netip.Prefix{}, map[string][]netip.Prefix{}
	for _, l := range n.mem.Leases {
		if l.Holder != n.self.Name || n.mine(l) && !l.Giving && !st.refused && !n.leaving {
			blocks[l.Holder] = append(blocks[l.Holder], l.Block)
		}
		for _, was := range l.Was {
			if l.Holder != "" {
				lost[was] = append(lost[was], l.Block)
			}
		}
	}
	for _, m := range []map[string][]netip.Prefix{blocks, lost} {
		for _, b := range m {
			slices.SortFunc(b, netip.Prefix.Compare)
		}
	}
	c.Self.Blocks = blocks[n.self.Name]
	for _, name := range slices.Sorted(maps.Keys(n.mem.Nodes)) {
		if name != n.self.Name {
			c.Peers = append(c.Peers, Node{Name: name, Addr: n.mem.Nodes[name].Addr, Blocks: blocks[name], Silent: !live(name), Lost: lost[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.mem.Networks)) {
		c.Networks = append(c.Networks, n.mem.Networks[name])
	}
	return c
}
