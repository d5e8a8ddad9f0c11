package store

import (
	"net/netip"
	"slices"
	"testing"
)

// From before the write on another host may have what is given back, and we hear of it last.
func TestWhatIsLeftIsNotOursFromBeforeTheWriteOn(t *testing.T) {
	t.Parallel()
	n, v := claimant(t)
	block := netip.MustParsePrefix("10.42.16.0/20")
	key := blockKey("blue", block)
	held := func(epoch uint64) []byte { return encode(blockRecord{Holder: "web1", By: n.self.by(), Epoch: epoch}) }
	if err := v.put(key, held(3), 21, 21); err != nil {
		t.Fatal(err)
	}
	n.mem.learn(v, "web1")
	n.leaving = true
	st := n.next(v)
	if st.txn == nil || !slices.Equal(st.gives, []string{key}) {
		t.Fatalf("to leave: gives %q, writes %+v", st.gives, st.txn)
	}
	n.giving(st.gives)
	if c := n.clusterOf(func(string) bool { return true }, step{}); len(c.Self.Blocks) > 0 {
		t.Errorf("it is used still: %v", c.Self.Blocks)
	}
	if st := n.next(v); st.txn == nil || len(st.gives) > 0 {
		t.Errorf("a second try: gives %q, writes %+v", st.gives, st.txn)
	}
	// The agent died before the store heard of it, and joins again.
	n.leaving, n.wants.Fixed = false, []netip.Addr{}
	if txn, gives := n.give(v); txn == nil || !slices.Equal(gives, []string{key}) {
		t.Errorf("after a new start: gives %q, writes %+v", gives, txn)
	}
}
