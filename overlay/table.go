package overlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/overlay/ipam"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// table is who is attached and which addresses are taken: plain memory, filled from the journal and the kernel.
type table struct {
	mu     sync.Mutex
	byKey  map[plan.Key]plan.Attachment
	byLink map[string]plan.Key
	byAddr map[netip.Addr]plan.Key
	pools  map[string]*ipam.Pool // by network
}

func newTable(networks []plan.Network) *table {
	t := &table{byKey: map[plan.Key]plan.Attachment{}, byLink: map[string]plan.Key{}, byAddr: map[netip.Addr]plan.Key{}, pools: map[string]*ipam.Pool{}}
	for _, n := range networks {
		t.pools[n.Name] = ipam.New(n.Blocks...)
	}
	return t
}

func (t *table) get(key plan.Key) (plan.Attachment, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.byKey[key]
	return a, ok
}

func (t *table) keyOf(link string) (plan.Key, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.byLink[link]
	return k, ok
}

// has tells whether a container is attached with this address.
func (t *table) has(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.byAddr[addr]
	return ok
}

func (t *table) all() []plan.Attachment {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]plan.Attachment, 0, len(t.byKey))
	for _, a := range t.byKey {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b plan.Attachment) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.IfName, b.IfName))
	})
	return out
}

// take gives key an address of network, the fixed one when it is valid.
func (t *table) take(network string, key plan.Key, fixed netip.Addr) (netip.Addr, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pool := t.pools[network]
	if pool == nil {
		return netip.Addr{}, fmt.Errorf("no network %q", network)
	}
	if fixed.IsValid() {
		return fixed, pool.TakeAddr(fixed, key.String())
	}
	return pool.Take(key.String())
}

// put enters an attachment, whose address has been taken.
func (t *table) put(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byKey[a.Key] = a
	t.byLink[a.Link()] = a.Key
	t.byAddr[a.Addr] = a.Key
}

// leave takes an attachment out; its address stays taken until free.
func (t *table) leave(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byKey, a.Key)
	delete(t.byLink, a.Link())
	delete(t.byAddr, a.Addr)
}

// free gives the address of an attachment that has left back to its pool.
func (t *table) free(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pool := t.pools[a.Network]; pool != nil {
		pool.Free(a.Addr)
	}
}

func (t *table) freeOf(network string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pools[network]; p != nil {
		return p.Size() - p.Used()
	}
	return 0
}

func (t *table) freeInAll() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pools {
		n += p.Size() - p.Used()
	}
	return n
}

func (t *table) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byKey)
}
