package store

import (
	"strings"
	"testing"
)

// known is a store at revision 20 in which web1 holds a block, and what a node that has seen it remembers.
func known(t *testing.T) (*view, *memory) {
	t.Helper()
	v := newView("c1", 20)
	for i, r := range []struct {
		key string
		rec any
	}{
		{epochKey, epochRecord{Epoch: 3, Token: "t", Lineage: "l", Cluster: "c1"}}, {networksDir + "blue", testNetwork()},
		{blocksDir + "blue/10.42.16.0-20", blockRecord{Holder: "web1", By: "id/boot", Epoch: 3}},
	} {
		if err := v.put(r.key, encode(r.rec), int64(10+i), int64(10+i)); err != nil {
			t.Fatal(err)
		}
	}
	m := &memory{ID: "id"}
	if why := m.restored(v); why != "" {
		t.Fatalf("to a new node the store is restored: %s", why)
	}
	if !m.learn(v, "web1") || m.learn(v, "web1") {
		t.Error("learning is a promise once")
	}
	return v, m
}

func TestARestoredStoreIsKnownByWhatItHasForgotten(t *testing.T) {
	t.Parallel()
	epoch := func(e epochRecord) func(*view) {
		return func(v *view) { _ = v.put(epochKey, encode(e), 10, 10) }
	}
	for _, c := range []struct {
		name   string
		change func(*view)
		want   string // empty: it is the same store
	}{
		{"nothing", func(*view) {}, ""},
		{"later", func(v *view) { v.rev = 30 }, ""},
		{"empty", func(v *view) { delete(v.dirs, "") }, "it has no epoch"},
		{"cluster", func(v *view) { v.cluster = "c2" }, "its cluster id changed"},
		{"revision", func(v *view) { v.rev = 19 }, "its revision went back"},
		{"epoch back", epoch(epochRecord{2, "s", "l", "c1"}), "its epoch went back"},
		{"epoch of another history", epoch(epochRecord{3, "u", "l", "c1"}), "another history"},
		{"epoch raised by another", epoch(epochRecord{4, "u", "l", "c1"}), ""},
		{"another store", epoch(epochRecord{1, "u", "k", "c1"}), ""},
		{"a lease is gone", func(v *view) { v.remove(blocksDir+"blue/10.42.16.0-20", 21) }, "the lease 10.42.16.0/20 of web1 is gone"},
		{"a lease is older", func(v *view) {
			_ = v.put(blocksDir+"blue/10.42.16.0-20", encode(blockRecord{Holder: "web2", By: "x", Epoch: 2}), 12, 13)
		}, "is gone"},
		{"a lease of the same revision is another's", func(v *view) {
			_ = v.put(blocksDir+"blue/10.42.16.0-20", encode(blockRecord{Holder: "web2", By: "x", Epoch: 3}), 12, 12)
		}, "is gone"},
		{"its network was removed", func(v *view) { v.remove(networksDir+"blue", 21) }, ""},
		{"its network was made anew", func(v *view) {
			v.remove(blocksDir+"blue/10.42.16.0-20", 21)
			_ = v.put(networksDir+"blue", encode(testNetwork()), 22, 22)
		}, ""},
	} {
		v, m := known(t)
		c.change(v)
		if got := m.restored(v); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOwnLeasesAreAssertedInAnotherStoreWhereNobodyHasThem(t *testing.T) {
	t.Parallel()
	for holder, kept := range map[string]bool{"": false, "web2": false, "none": true} {
		_, m := known(t)
		v := newView("c9", 20)
		_ = v.put(epochKey, encode(epochRecord{1, "u", "k", "c9"}), 2, 2)
		_ = v.put(networksDir+"blue", encode(testNetwork()), 3, 3)
		if holder != "none" { // "": given back
			_ = v.put(blocksDir+"blue/10.42.16.0-20", encode(blockRecord{Holder: holder, By: "x", Epoch: 1}), 4, 4)
		}
		m.learn(v, "web1")
		if got := m.Leases[blocksDir+"blue/10.42.16.0-20"].Holder == "web1"; got != kept {
			t.Errorf("there it is held by %q: kept %t, want %t", holder, got, kept)
		}
	}
}
