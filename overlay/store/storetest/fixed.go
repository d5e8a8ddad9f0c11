package storetest

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/store"
)

func addresses(t *testing.T, stores []store.Shared) {
	web1, web2 := Follow(t, stores[0]), Follow(t, stores[1])
	joined := func(c store.Cluster) bool {
		return len(c.Peers) == 1 && len(c.Peers[0].Blocks) > 0 && len(c.Self.Blocks) > 0
	}
	web1.Until("web2", joined)
	web2.Until("web1", joined)
	addr := netip.MustParseAddr("10.42.240.5")
	block := netip.PrefixFrom(addr, 32)
	claim := func(s store.Shared, whose string, takeOver bool) error {
		s.Want(store.Wants{Fixed: []netip.Addr{addr}})
		return s.Claim(t.Context(), store.Claim{Network: "blue", Addr: addr, For: whose, TakeOver: takeOver})
	}
	held := func(c store.Cluster) bool { return slices.Contains(c.Self.Blocks, block) }
	elsewhere := func(c store.Cluster) bool { return slices.Contains(c.Peers[0].Blocks, block) }
	for range 2 { // the second time it has it already
		if err := claim(stores[0], "c1", false); err != nil {
			t.Fatal(err)
		}
	}
	web1.Until("it has it", held)
	web2.Until("web1 has it", elsewhere)
	var fault *store.HeldError
	for _, takeOver := range []bool{false, true} {
		if err := claim(stores[1], "c2", takeOver); !errors.As(err, &fault) || fault.Holder != "web1" || fault.For != "c1" || fault.Silent {
			t.Errorf("claimed from a living host (take over: %t): %v", takeOver, err)
		}
	}
	stores[0].Want(store.Wants{Fixed: []netip.Addr{}})
	web2.Until("web1 has given it back", func(c store.Cluster) bool { return !elsewhere(c) })
	if err := claim(stores[1], "c2", false); err != nil {
		t.Fatal(err)
	}
	if c := web1.Until("web2 has it", elsewhere); len(c.Peers[0].Lost) > 0 || held(c) {
		t.Errorf("after it was given back: %+v", c)
	}
	web2.Stop()
	web1.Until("web2 is silent", func(c store.Cluster) bool { return c.Peers[0].Silent && elsewhere(c) })
	if err := claim(stores[0], "c1", false); !errors.As(err, &fault) || !fault.Silent || !strings.Contains(err.Error(), "fairlead net take 10.42.240.5 --take-over") {
		t.Fatalf("claimed from a silent host: %v", err)
	}
	if err := claim(stores[0], "c1", true); err != nil {
		t.Fatal(err)
	}
	if c := web1.Until("it has it", held); !slices.Equal(c.Peers[0].Lost, []netip.Prefix{block}) {
		t.Errorf("what web2 may still believe to hold: %v", c.Peers[0].Lost)
	}
	web2 = Follow(t, stores[1])
	web2.Until("it learns that it has lost it", func(c store.Cluster) bool { return joined(c) && !held(c) && elsewhere(c) })
	other := store.Claim{Network: "blue", Addr: web1.Until("blocks", joined).Self.Blocks[0].Addr().Next()}
	if err := stores[1].Claim(t.Context(), other); err == nil {
		t.Errorf("%s was given, which is of a block", other.Addr)
	}
}
