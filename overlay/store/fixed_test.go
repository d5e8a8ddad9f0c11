package store

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// claimant is web1, registered in a store where web2 holds 10.42.240.5 and web3 has given 10.42.240.6 back.
func claimant(t *testing.T) (*node, *view) {
	t.Helper()
	n := &node{self: Identity{Name: "web1", ID: "id", Boot: "boot", Addr: netip.MustParseAddr("192.0.2.11")}, fresh: func() string { return "x" }, session: 13}
	v := newView("c1", 20)
	for i, r := range []struct {
		key string
		rec any
	}{
		{epochKey, epochRecord{Epoch: 3, Token: "t", Lineage: "l", Cluster: "c1"}}, {networksDir + "blue", testNetwork()},
		{liveDir + "web2", Identity{ID: "id2", Addr: netip.MustParseAddr("192.0.2.12")}}, {liveDir + "web1", n.self},
		{blocksDir + "blue/10.42.240.5-32", blockRecord{Holder: "web2", By: "id2/b", Epoch: 3, For: "db"}},
		{blocksDir + "blue/10.42.240.6-32", blockRecord{Epoch: 3}},
	} {
		if err := v.put(r.key, encode(r.rec), int64(10+i), int64(10+i)); err != nil {
			t.Fatal(err)
		}
	}
	n.mem.learn(v, "web1")
	return n, v
}

func TestAClaimIsAnsweredByWhoHoldsTheAddress(t *testing.T) {
	t.Parallel()
	silent := func(_ *node, v *view) { v.remove(liveDir+"web2", 21) }
	for _, c := range []struct {
		name, addr string
		takeOver   bool
		change     func(*node, *view)
		refused    string // empty: there is a write
		condition  string
	}{
		{"nobody ever had it", "10.42.240.7", false, nil, "", "grace@0"},
		{"it was given back", "10.42.240.6", false, nil, "", "blocks/blue/10.42.240.6-32@15"},
		{"a living host has it", "10.42.240.5", true, nil, "10.42.240.5 is held by host web2, for container db", ""},
		{"a silent host has it", "10.42.240.5", false, silent, "`fairlead net take 10.42.240.5 --take-over`", ""},
		{"a silent host's is taken", "10.42.240.5", true, silent, "", "live/web2@0"},
		{"grace", "10.42.240.7", false, func(_ *node, v *view) { _ = v.put(graceKey, encode(graceRecord{3}), 21, 21) }, ErrGrace.Error(), ""},
		{"of a block", "10.42.1.1", false, nil, "is not of a fixed range", ""},
		{"a record of a newer agent", "10.42.240.7", false, func(_ *node, v *view) { _ = v.put(blocksDir+"blue/10.42.240.7-32", []byte(`{"v":2}`), 21, 21) }, "it has version 2", ""},
		{"the network is gone", "10.42.240.7", false, func(_ *node, v *view) { v.remove(networksDir+"blue", 21) }, "no network", ""},
	} {
		n, v := claimant(t)
		if c.change != nil {
			c.change(n, v)
		}
		claim := Claim{Network: "blue", Addr: netip.MustParseAddr(c.addr), For: "c1", TakeOver: c.takeOver}
		n.claims = []Claim{claim}
		st := n.claim(v)
		switch err := st.answers[claim]; {
		case c.refused != "" && (err == nil || st.txn != nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s: %v, %v; want %q", c.name, err, st.txn, c.refused)
		case c.refused == "" && (err != nil || st.txn == nil || !strings.Contains(st.txn.String(), c.condition)):
			t.Errorf("%s: %v, %v; want a write with %q", c.name, err, st.txn, c.condition)
		}
	}
}

func TestAnAddressThatIsBeingGivenBackIsOursAgainByAClaimOnly(t *testing.T) {
	t.Parallel()
	n, v := claimant(t)
	claim := Claim{Network: "blue", Addr: netip.MustParseAddr("10.42.240.6")}
	n.claims = []Claim{claim}
	write := func(st step) {
		t.Helper()
		if st.txn == nil {
			t.Fatal("no write")
		}
		_ = v.put(claim.key(), st.txn.Then[0].Value, 15, v.rev+1)
		n.mem.learn(v, "web1")
	}
	write(n.claim(v))
	if st := n.claim(v); st.txn != nil || st.answers[claim] != nil || !n.holds(claim.key()) {
		t.Errorf("after the write: %+v", st)
	}
	if txn, _ := n.give(v); txn != nil {
		t.Errorf("before anything is known of containers: %s", txn)
	}
	n.wants.Fixed = []netip.Addr{claim.Addr}
	if txn, _ := n.give(v); txn != nil {
		t.Errorf("what a container has: %s", txn)
	}
	n.wants.Fixed = []netip.Addr{}
	_, keys := n.give(v)
	if !slices.Equal(keys, []string{claim.key()}) {
		t.Fatalf("it gives %v", keys)
	}
	n.giving(keys)
	self := func() []netip.Prefix { return n.clusterOf(func(string) bool { return true }, step{}).Self.Blocks }
	if n.holds(claim.key()) || len(self()) > 0 {
		t.Errorf("while it is given back this host has %v", self())
	}
	// Another may have it already, and a restored store not know: we do not say that it is ours, nor in a grace period that it
	// is nobody's.
	_ = v.put(epochKey, encode(epochRecord{Epoch: 4, Token: "u", Lineage: "l", Cluster: "c1"}), 10, v.rev+1)
	_ = v.put(graceKey, encode(graceRecord{4}), v.rev+1, v.rev+1)
	n.mem.learn(v, "web1")
	if txn := n.assert(v); txn != nil {
		t.Errorf("it asserts %s", txn)
	}
	if txn, _ := n.give(v); txn != nil {
		t.Errorf("in a grace period: %s", txn)
	}
	v.remove(graceKey, v.rev+1)
	if txn, _ := n.give(v); txn == nil {
		t.Error("after the grace period it is not given back")
	}
	write(n.claim(v))
	if !n.holds(claim.key()) || !slices.Equal(self(), []netip.Prefix{claim.block()}) {
		t.Errorf("claimed anew this host has %v", self())
	}
}

func TestWhoMayNotKnowThatHeLostALeaseIsRemembered(t *testing.T) {
	t.Parallel()
	first := Lease{Holder: "web1", Fence: Fence{1, 5}}
	read := func(r blockRecord, rev int64) Lease {
		return Lease{Holder: r.Holder, Fence: Fence{r.Epoch, rev}, Was: r.Was, After: r.After}
	}
	given := read(first.next("", "by", 1, true), 6)
	taken := read(first.next("web2", "by", 1, false), 6)
	back := read(taken.next("web1", "by", 1, false), 7)
	unknown := read(Lease{}.next("web2", "by", 2, false), 3) // after a restore, by one who did not know
	for _, c := range []struct {
		name  string
		lease Lease
		want  []string
	}{
		{"given back by its holder", given, nil},
		{"given back, and then another's", read(given.next("web2", "by", 1, false), 7), nil},
		{"taken", taken, []string{"web1"}},
		{"taken, and taken back", back, []string{"web2"}},
		{"taken by one who did not know", unknown, []string{"web1"}},
	} {
		if got := c.lease.learntAfter(first).Was; !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
