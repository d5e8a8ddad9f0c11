package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

const (
	// claimWait bounds how long a container waits for the store to give it its address.
	claimWait = 3 * time.Second
	// reservedFor is how long an address that was taken by command waits for its container.
	reservedFor = 10 * time.Minute
)

// ErrTryLater is returned for an address that cannot be had just now: the store is away, or its epoch has just begun. The
// cause is wrapped.
var ErrTryLater = errors.New("try again later")

// ForeignAddressError is returned for an address that this host cannot have by asking for it.
type ForeignAddressError struct {
	Addr   netip.Addr
	Block  netip.Prefix // invalid: it is of no host's block
	Holder string       // of the block
	Ranges []netip.Prefix
}

func (e *ForeignAddressError) Error() string {
	text := fmt.Sprintf("%s is of no block of this host", e.Addr)
	if e.Holder != "" {
		text = fmt.Sprintf("%s is of the block %s, which host %s holds", e.Addr, e.Block, e.Holder)
	}
	if len(e.Ranges) == 0 {
		return text + "; no addresses move between hosts here"
	}
	return fmt.Sprintf("%s; addresses that move between hosts are those of %v", text, e.Ranges)
}

// fixedUse is what this host needs of fixed ranges beside the addresses that containers have.
type fixedUse struct {
	mu       sync.Mutex
	pending  map[netip.Addr]int // of attaches under way
	reserved map[netip.Addr]time.Time
}

// hold counts an attach, or its end, that is under way for addr.
func (f *fixedUse) hold(addr netip.Addr, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending == nil {
		f.pending = map[netip.Addr]int{}
	}
	if f.pending[addr] += by; f.pending[addr] == 0 {
		delete(f.pending, addr)
	}
}

// reserve keeps addr until then; the zero time ends it.
func (f *fixedUse) reserve(addr netip.Addr, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reserved == nil {
		f.reserved = map[netip.Addr]time.Time{}
	}
	f.reserved[addr] = until
}

// list gives what is held and reserved now.
func (f *fixedUse) list(now time.Time) (addrs []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr := range f.pending {
		addrs = append(addrs, addr)
	}
	for addr, until := range f.reserved {
		if now.After(until) {
			delete(f.reserved, addr)
		} else {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// wantFixed gives the addresses of fixed ranges that are in use here: until all attachments are known, nil. An address
// stays in use until nothing on this host leads to it any more.
func (s *session) wantFixed() []netip.Addr {
	s.mu.Lock()
	recovered, networks := s.inUse == nil, s.cluster.Networks
	s.mu.Unlock()
	if !recovered {
		return nil
	}
	out := append([]netip.Addr{}, s.fixed.list(time.Now())...)
	for _, n := range networks {
		for _, addr := range s.table.taken(n.Name) {
			if n.IsFixed(addr) {
				out = append(out, addr)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// haveFixed tells whether one of list has an address of a fixed range.
func (s *session) haveFixed(list []plan.Attachment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(list, func(a plan.Attachment) bool {
		return slices.ContainsFunc(s.cluster.Networks, func(n store.Network) bool { return n.IsFixed(a.Addr) || n.IsFixed(a.Addr6) })
	})
}

// claimFixed makes the addresses that r asks for this host's when they are of a fixed range, for as long as the attach is
// under way and the container has them after it. done ends the first.
func (s *session) claimFixed(ctx context.Context, network plan.Network, r Request) (done func(), err error) {
	done = func() {}
	var claims []store.Claim
	for _, addr := range []netip.Addr{r.Addr, r.Addr6} {
		if !addr.IsValid() || !slices.ContainsFunc(network.CIDRs(), func(c netip.Prefix) bool { return c.Contains(addr) }) {
			continue // what is of no network is refused by the table
		}
		fixed, err := s.isFixed(network, addr)
		if err != nil {
			return done, err
		}
		if fixed {
			claims = append(claims, store.Claim{Network: network.Name, Addr: addr, For: r.Owner})
		}
	}
	shared, ok := s.o.store.(store.Shared)
	if len(claims) == 0 || !ok {
		return done, nil
	}
	for _, c := range claims {
		s.fixed.hold(c.Addr, 1)
	}
	done = func() {
		for _, c := range claims {
			if s.table.has(c.Addr) {
				s.fixed.reserve(c.Addr, time.Time{}) // it was kept for this container
			}
			s.fixed.hold(c.Addr, -1)
		}
		s.changed()
	}
	s.needFromStore()
	for _, c := range claims {
		if err := s.claimOne(ctx, shared, c); err != nil {
			done()
			return func() {}, err
		}
	}
	return done, nil
}

// claimOne has the store give an address and waits until this host's part has it.
func (s *session) claimOne(ctx context.Context, shared store.Shared, c store.Claim) error {
	ctx, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	err := shared.Claim(ctx, c)
	if errors.Is(err, store.ErrAway) || errors.Is(err, store.ErrGrace) {
		err = fmt.Errorf("%w: %w", ErrTryLater, err)
	}
	if err != nil {
		return fmt.Errorf("address %s of network %s: %w", c.Addr, c.Network, err)
	}
	err = s.until(ctx, func() bool {
		i := networkIndex(s.networks, c.Network)
		return i >= 0 && slices.Contains(s.networks[i].Blocks, netip.PrefixFrom(c.Addr, c.Addr.BitLen()))
	})
	if err != nil {
		return fmt.Errorf("address %s of network %s: this host has not taken it over yet: %w", c.Addr, c.Network, err)
	}
	return nil
}

// until waits until done, which is called with the session locked, or for the end of ctx.
func (s *session) until(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, taken := done(), s.taken
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// singlesOf gives the single addresses among the blocks of hosts.
func singlesOf(hosts []store.Node) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for _, h := range hosts {
		for _, b := range h.Blocks {
			if b.IsSingleIP() {
				out[b] = true
			}
		}
	}
	return out
}

// isFixed tells whether addr is of a fixed range. It fails for one that is of no block of this host either.
func (s *session) isFixed(network plan.Network, addr netip.Addr) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := &ForeignAddressError{Addr: addr}
	for _, n := range s.cluster.Networks {
		if n.Name != network.Name {
			continue
		}
		if n.IsFixed(addr) {
			return true, nil
		}
		fault.Ranges = n.FixedRanges()
	}
	if holds(network, addr) {
		return false, nil
	}
	for _, p := range network.Peers {
		if i := slices.IndexFunc(p.Blocks, func(b netip.Prefix) bool { return b.Contains(addr) }); i >= 0 {
			fault.Block, fault.Holder = p.Blocks[i], p.Name
		}
	}
	return false, fault
}

// Take makes an address of a fixed range this host's, for the container that will ask for it; from a silent host only
// with takeOver. It is given back when that container has gone, or after ten minutes without one.
func (o *Overlay) Take(ctx context.Context, addr netip.Addr, takeOver bool) error {
	fail := func(err error) error { return fmt.Errorf("take %s: %w", addr, err) }
	shared, ok := o.store.(store.Shared)
	if !ok {
		return fail(errNotShared)
	}
	s, err := o.current(ctx)
	if err != nil {
		return fail(err)
	}
	s.mu.Lock()
	networks := s.networks
	s.mu.Unlock()
	i := slices.IndexFunc(networks, func(n plan.Network) bool {
		return slices.ContainsFunc(n.CIDRs(), func(c netip.Prefix) bool { return c.Contains(addr) })
	})
	if i < 0 {
		return fail(errors.New("it is of no network of this host"))
	}
	fixed, err := s.isFixed(networks[i], addr)
	switch {
	case err != nil:
		return fail(err)
	case !fixed:
		return fail(errors.New("it is of a block of this host, which has it already"))
	}
	s.fixed.reserve(addr, time.Now().Add(reservedFor))
	s.needFromStore()
	if err := s.claimOne(ctx, shared, store.Claim{Network: networks[i].Name, Addr: addr, For: "net take", TakeOver: takeOver}); err != nil {
		s.fixed.reserve(addr, time.Time{})
		s.changed()
		return fail(err)
	}
	time.AfterFunc(reservedFor+time.Second, s.changed)
	return nil
}
