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
	byPort map[uint16][]portHolder // by port of the host
	pools  map[string]pools        // by network
}

// portHolder has a port of the host.
type portHolder struct {
	plan.Port
	key plan.Key
}

// pools are the addresses of one network on this host; six is nil when it has no IPv6.
type pools struct{ four, six *ipam.Pool }

func newPools(n plan.Network) pools {
	p := pools{four: ipam.New()}
	if n.CIDR6.IsValid() {
		p.six = ipam.New()
	}
	p.setBlocks(n)
	return p
}

// setBlocks tells the pools which blocks this host holds.
func (p pools) setBlocks(n plan.Network) {
	var blocks4, blocks6 []netip.Prefix
	for _, b := range n.Blocks {
		if b.Addr().Is4() {
			blocks4 = append(blocks4, b)
		} else {
			blocks6 = append(blocks6, b)
		}
	}
	p.four.SetBlocks(blocks4...)
	if p.six != nil {
		p.six.SetBlocks(blocks6...)
	}
}

func newTable() *table {
	return &table{
		byKey: map[plan.Key]plan.Attachment{}, byLink: map[string]plan.Key{}, byAddr: map[netip.Addr]plan.Key{},
		byPort: map[uint16][]portHolder{}, pools: map[string]pools{},
	}
}

// serve makes the pools of networks that have none yet, gives all their blocks, and forgets those of networks that are
// no longer there.
func (t *table) serve(networks []plan.Network) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.pools {
		if networkIndex(networks, name) < 0 {
			delete(t.pools, name)
		}
	}
	for _, n := range networks {
		if p, ok := t.pools[n.Name]; ok {
			p.setBlocks(n)
		} else {
			t.pools[n.Name] = newPools(n)
		}
	}
}

func (t *table) get(key plan.Key) (plan.Attachment, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.byKey[key]
	return a, ok
}

// byName gives the attachment whose host link has this name.
func (t *table) byName(link string) (plan.Attachment, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, ok := t.byLink[link]
	return t.byKey[key], ok
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

// take gives the key of a the addresses of its network, the fixed ones where they are valid, and its ports of the host.
// It fails with nothing taken.
func (t *table) take(a plan.Attachment) (plan.Attachment, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pools[a.Network]
	if !ok {
		return a, fmt.Errorf("no network %q", a.Network)
	}
	if i := slices.IndexFunc(a.Ports, func(q plan.Port) bool { return p.six == nil && q.HostIP.Is6() }); i >= 0 {
		return a, &InvalidRequestError{fmt.Sprintf("host port %s: network %s has no IPv6", a.Ports[i], a.Network)}
	}
	if err := t.portsFree(a); err != nil {
		return a, err
	}
	var err error
	if a.Addr, err = takeFrom(p.four, a.Addr, a.Key); err != nil {
		return a, fmt.Errorf("network %s: %w", a.Network, err)
	}
	if p.six == nil {
		if a.Addr6.IsValid() {
			p.four.Free(a.Addr, a.Key.String())
			return a, &InvalidRequestError{fmt.Sprintf("address %s: network %s has no IPv6", a.Addr6, a.Network)}
		}
	} else if a.Addr6, err = takeFrom(p.six, a.Addr6, a.Key); err != nil {
		p.four.Free(a.Addr, a.Key.String())
		return a, fmt.Errorf("network %s: %w", a.Network, err)
	}
	for _, port := range a.Ports {
		t.byPort[port.HostPort] = append(t.byPort[port.HostPort], portHolder{port, a.Key})
	}
	return a, nil
}

// keep gives the key of a addresses that are of no block of this host (any more), so that nobody else is given them.
func (t *table) keep(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pools[a.Network]
	if !ok {
		return
	}
	p.four.Keep(a.Addr, a.Key.String())
	if p.six != nil && a.Addr6.IsValid() {
		p.six.Keep(a.Addr6, a.Key.String())
	}
}

// taken gives all addresses of a network that somebody has, those too that wait until their links have gone.
func (t *table) taken(network string) (list []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pools[network]
	if !ok {
		return nil
	}
	list = slices.AppendSeq(list, p.four.Taken())
	if p.six != nil {
		list = slices.AppendSeq(list, p.six.Taken())
	}
	return list
}

func takeFrom(p *ipam.Pool, fixed netip.Addr, key plan.Key) (netip.Addr, error) {
	if fixed.IsValid() {
		return fixed, p.TakeAddr(fixed, key.String())
	}
	return p.Take(key.String())
}

// PortInUseError tells who holds a port of the host that was asked for.
type PortInUseError struct {
	Port   plan.Port
	Holder string
}

func (e *PortInUseError) Error() string {
	return fmt.Sprintf("host port %s is held by %s", e.Port, e.Holder)
}

func (t *table) portsFree(a plan.Attachment) error {
	for i, p := range a.Ports {
		for _, h := range t.byPort[p.HostPort] {
			if h.key != a.Key && h.Clashes(p) {
				return &PortInUseError{p, "container " + h.key.String()}
			}
		}
		for _, q := range a.Ports[:i] {
			if p.Clashes(q) {
				return &InvalidRequestError{fmt.Sprintf("host port %s is asked for twice", p)}
			}
		}
	}
	return nil
}

// put enters an attachment, whose addresses have been taken.
func (t *table) put(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byKey[a.Key] = a
	t.byLink[a.Link()] = a.Key
	for _, addr := range a.Addrs() {
		t.byAddr[addr] = a.Key
	}
}

// leave takes an attachment out; its addresses and ports stay taken until free.
func (t *table) leave(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byKey, a.Key)
	delete(t.byLink, a.Link())
	for _, addr := range a.Addrs() {
		delete(t.byAddr, addr)
	}
}

// freePorts gives the ports of the host of an attachment that has left back.
func (t *table) freePorts(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range a.Ports {
		t.byPort[p.HostPort] = slices.DeleteFunc(t.byPort[p.HostPort], func(h portHolder) bool { return h.key == a.Key })
		if len(t.byPort[p.HostPort]) == 0 {
			delete(t.byPort, p.HostPort)
		}
	}
}

// freeAddrs gives its addresses back.
func (t *table) freeAddrs(a plan.Attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pools[a.Network]
	if !ok {
		return
	}
	p.four.Free(a.Addr, a.Key.String())
	if p.six != nil {
		p.six.Free(a.Addr6, a.Key.String())
	}
}

// freeOf tells how many IPv4 addresses of a network nobody has.
func (t *table) freeOf(network string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.pools[network]; ok {
		return p.four.Size() - p.four.Used()
	}
	return 0
}

// low tells whether a network has so few IPv4 addresses left that another block is worth having.
func (t *table) low(network string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pools[network]
	return ok && 8*(p.four.Size()-p.four.Used()) < p.four.Size()
}

func (t *table) freeInAll() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pools {
		n += p.four.Size() - p.four.Used()
	}
	return n
}

// on gives the attachments to a network.
func (t *table) on(network string) []plan.Attachment {
	return slices.DeleteFunc(t.all(), func(a plan.Attachment) bool { return a.Network != network })
}

func (t *table) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byKey)
}
