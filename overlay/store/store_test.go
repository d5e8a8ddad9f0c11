package store

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
)

func nodes(names ...string) []Node {
	var out []Node
	for i, n := range names {
		out = append(out, Node{Name: n, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
	}
	return out
}

func TestStaticPublishesAtOnceAndAfterEachChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := NewStatic("a", nodes("a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		var seen []int
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = s.Follow(ctx, func(c Cluster) { seen = append(seen, len(c.Peers)) }) }()
		synctest.Wait()
		if err := s.Set(nodes("a", "b", "c")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if len(seen) != 2 || seen[0] != 1 || seen[1] != 2 {
			t.Fatalf("published peers %v, want [1 2]", seen)
		}
	})
}

func TestStaticRefusesAListWithoutThisNodeOrWithAnotherEntryForIt(t *testing.T) {
	t.Parallel()
	if _, err := NewStatic("x", nodes("a", "b")); err == nil || !strings.Contains(err.Error(), `this node, "x", is not listed`) {
		t.Fatalf("got %v", err)
	}
	s, err := NewStatic("a", nodes("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(nodes("b", "a")); err == nil || !strings.Contains(err.Error(), "needs a restart") {
		t.Fatalf("got %v", err)
	}
}
