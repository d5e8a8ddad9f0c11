package store_test

import (
	"net/netip"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/store"
	"github.com/fairlead-dev/fairlead/overlay/store/storetest"
)

func TestLocalPassesTheSuite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) []store.Store { return []store.Store{store.Local("web1")} })
}

func TestStaticPassesTheSuite(t *testing.T) {
	t.Parallel()
	list := []store.Node{
		{Name: "web1", Addr: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}},
		{Name: "web2", Addr: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24")}},
	}
	storetest.Run(t, func(t *testing.T) (out []store.Store) {
		for _, n := range list {
			s, err := store.NewStatic(n.Name, list)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return out
	})
}
