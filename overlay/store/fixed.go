package store

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Claim asks for one address of a network's fixed range.
type Claim struct {
	Network string
	Addr    netip.Addr
	For     string // the container that is to have it; for people
	// TakeOver takes it from a host that is silent.
	TakeOver bool
}

func (c Claim) block() netip.Prefix { return netip.PrefixFrom(c.Addr, c.Addr.BitLen()) }
func (c Claim) key() string         { return blockKey(c.Network, c.block()) }

// HeldError says who holds an address that was claimed.
type HeldError struct {
	Addr   netip.Addr
	Holder string // node
	For    string // its container, as far as it is known
	Silent bool   // the node's agent is not heard of: it can be taken over
}

func (e *HeldError) Error() string {
	text := fmt.Sprintf("%s is held by host %s", e.Addr, e.Holder)
	if e.For != "" {
		text += ", for container " + e.For
	}
	if e.Silent {
		text += fmt.Sprintf("; that host is silent: if it is gone for good, `fairlead net take %s --take-over` takes the address here", e.Addr)
	}
	return text
}

var (
	// ErrGrace is returned while nothing new is leased.
	ErrGrace = errors.New("the store's epoch has just begun; addresses are given when all hosts have had time to say what they hold")
	// ErrAway is returned while the store does not answer.
	ErrAway = errors.New("the store does not answer")
)

// IsFixed tells whether addr is of a fixed range of n.
func (n Network) IsFixed(addr netip.Addr) bool {
	return n.Fixed.Contains(addr) || n.Fixed6.Contains(addr)
}

// FixedRanges gives those that there are, IPv4 first.
func (n Network) FixedRanges() (list []netip.Prefix) {
	for _, p := range []netip.Prefix{n.Fixed, n.Fixed6} {
		if p.IsValid() {
			list = append(list, p)
		}
	}
	return list
}

// leased counts the blocks of a CIDR that can be leased: those that are not of its fixed range.
func (n Network) leased(cidr netip.Prefix, bits int) int {
	all := blocksOf(cidr, bits)
	for _, f := range n.FixedRanges() {
		if cidr.Overlaps(f) {
			all -= blocksOf(f, max(bits, f.Bits()))
		}
	}
	return all
}

// holds tells whether an address is ours by all that we know.
func (n *node) holds(key string) bool {
	l := n.mem.Leases[key]
	return l.Holder == n.self.Name && n.mine(l) && !l.Giving
}

// claim answers the claims that can be answered, and makes the write of the first that needs one.
func (n *node) claim(v *view) step {
	st := step{answers: map[Claim]error{}}
	for _, c := range n.claims {
		if n.holds(c.key()) {
			st.answers[c] = nil
			continue
		}
		t, err := n.claimOne(v, c)
		if err == nil {
			st.txn = t
			return st
		}
		st.answers[c] = err
	}
	return st
}

func (n *node) claimOne(v *view, c Claim) (*Txn, error) {
	w, _, there := v.network(c.Network)
	l, key := n.mem.Leases[c.key()], c.key()
	switch {
	case !there:
		return nil, fmt.Errorf("no network %q in the store", c.Network)
	case !w.IsFixed(c.Addr):
		return nil, fmt.Errorf("%s is not of a fixed range of network %s", c.Addr, c.Network)
	case v.item(key).err != nil:
		return nil, fmt.Errorf("the store's record %s cannot be used: %w", key, v.item(key).err)
	case v.grace():
		return nil, ErrGrace
	}
	t := n.take(v, "claim", c.Network, c.block(), c.For)
	t.If = append(t.If, Cond{Key: graceKey})
	if l.Holder != "" && l.Holder != n.self.Name {
		live := liveDir + l.Holder
		if silent := v.mod(live) == 0; !silent || !c.TakeOver {
			return nil, &HeldError{Addr: c.Addr, Holder: l.Holder, For: l.For, Silent: silent}
		}
		t.If = append(t.If, Cond{Key: live})
	}
	return t, nil
}

// give gives back the addresses of fixed ranges that nobody here has, and corrects what a restored store says of us that
// we know better. Not in a grace period, in which others may have yet to say what they hold.
func (n *node) give(v *view) (*Txn, []string) {
	if n.wants.Fixed == nil || v.grace() {
		return nil, nil
	}
	back := map[string]bool{} // whether it is ours until then
	for key, l := range n.mem.Leases {
		w, _, there := v.network(l.Network)
		if !there || v.item(key).err != nil {
			continue
		}
		switch l.Holder {
		case n.self.Name:
			// A block that was being given back when we left, and did not get as far, goes now.
			if fixed := w.IsFixed(l.Block.Addr()); fixed && !slices.Contains(n.wants.Fixed, l.Block.Addr()) || !fixed && l.Giving {
				back[key] = true
			}
		case "":
			if now, _ := v.lease(key); now.Holder == n.self.Name && now.Fence.Compare(l.Fence) < 0 {
				back[key] = false
			}
		}
	}
	if len(back) == 0 {
		return nil, nil
	}
	e, _ := get[epochRecord](v, epochKey)
	t := &Txn{Why: "give back what no container has", If: n.registered(v)}
	var gives []string
	for _, key := range slices.Sorted(maps.Keys(back)) {
		if len(t.Then) == releaseAtOnce {
			break
		}
		t.If = append(t.If, v.same(key))
		t.Then = append(t.Then, Write{Key: key, Value: encode(n.mem.Leases[key].next("", n.self.by(), e.Epoch, true))})
		if back[key] {
			gives = append(gives, key)
		}
	}
	return t, gives
}

// giving notes, before the write that gives them back, that leases are not ours any more: another may have them before we
// hear of it. It is a promise.
func (n *node) giving(keys []string) {
	for _, key := range keys {
		l := n.mem.Leases[key]
		l.Giving = true
		n.mem.Leases[key] = l
	}
}
