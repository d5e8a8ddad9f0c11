// Package ipam hands out the addresses of the blocks that this host holds. It is pure memory: the overlay's journal
// is what survives, and fills a Pool again after a restart.
//
// An address that was freed rests: fresh ones go first, then the one freed longest ago, so that a late packet for a
// dead container seldom meets a new one. A block of one address is given to who asks for it by name, and to nobody else.
package ipam

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// ErrExhausted is returned when every address of the blocks is taken.
var ErrExhausted = errors.New("no free address")

// InUseError tells who holds an address that was asked for.
type InUseError struct {
	Addr  netip.Addr
	Owner string
}

func (e *InUseError) Error() string { return fmt.Sprintf("%s is held by %s", e.Addr, e.Owner) }

// Pool is the addresses of one network on this host. It is not safe for concurrent use.
type Pool struct {
	blocks  []netip.Prefix
	singles map[netip.Addr]bool // blocks of one address
	holder  map[netip.Addr]string
	freed   []netip.Addr // oldest first; may hold addresses that were taken again by name
	fresh   netip.Addr   // next never-used address of blocks[at]
	at      int
	// resting are those of freed that fresh has yet to pass.
	resting map[netip.Addr]bool
}

// New makes a pool over blocks. The first address after each block's network address is the host's own.
func New(blocks ...netip.Prefix) *Pool {
	p := &Pool{holder: map[netip.Addr]string{}}
	p.blocks, p.singles = apart(blocks)
	if len(p.blocks) > 0 {
		p.fresh = first(p.blocks[0])
	}
	return p
}

// SetBlocks changes which blocks the host holds. Addresses of a block that it lost stay with who has them, and are
// given to nobody else.
func (p *Pool) SetBlocks(blocks ...netip.Prefix) {
	now, singles := apart(blocks)
	p.singles = singles
	if slices.Equal(now, p.blocks) {
		return
	}
	freed := p.freed
	holder := p.holder
	*p = *New(now...)
	p.holder, p.singles = holder, singles
	// What was freed rests behind what is fresh, whether or not it has been used in this block.
	rested := map[netip.Addr]bool{}
	for _, addr := range freed {
		if slices.ContainsFunc(p.blocks, func(b netip.Prefix) bool { return usable(b, addr) }) {
			p.freed, rested[addr] = append(p.freed, addr), true
		}
	}
	p.resting = rested
}

// apart tells blocks of one address from larger ones.
func apart(blocks []netip.Prefix) (larger []netip.Prefix, singles map[netip.Addr]bool) {
	singles = map[netip.Addr]bool{}
	for _, b := range blocks {
		if b.IsSingleIP() {
			singles[b.Addr()] = true
		} else {
			larger = append(larger, b.Masked())
		}
	}
	return larger, singles
}

// Keep says that owner has an address, which may be of no block of this host (any more): nobody else is given it.
func (p *Pool) Keep(addr netip.Addr, owner string) {
	if _, taken := p.holder[addr]; !taken {
		p.holder[addr] = owner
	}
}

// Taken gives all addresses that somebody has, in no order.
func (p *Pool) Taken() iter.Seq[netip.Addr] { return maps.Keys(p.holder) }

// Node gives the host's own address of a block: the one after the network address, or the first of a block of two. Of a
// block of one there is none that is not a container's.
func Node(block netip.Prefix) netip.Addr {
	block = block.Masked()
	if block.Bits() >= block.Addr().BitLen()-1 {
		return block.Addr()
	}
	return block.Addr().Next()
}

func first(block netip.Prefix) netip.Addr { return Node(block).Next() }

// Take gives owner an address. It fails with ErrExhausted.
func (p *Pool) Take(owner string) (netip.Addr, error) {
	for p.at < len(p.blocks) {
		addr, block := p.fresh, p.blocks[p.at]
		if !usable(block, addr) {
			p.at++
			if p.at < len(p.blocks) {
				p.fresh = first(p.blocks[p.at])
			}
			continue
		}
		p.fresh = addr.Next()
		if _, taken := p.holder[addr]; !taken && !p.resting[addr] {
			p.holder[addr] = owner
			return addr, nil
		}
	}
	if len(p.blocks) == 0 { // single addresses are asked for by name
		return netip.Addr{}, fmt.Errorf("%w: this host holds no block of it", ErrExhausted)
	}
	for len(p.freed) > 0 {
		addr := p.freed[0]
		p.freed = p.freed[1:]
		if _, taken := p.holder[addr]; !taken {
			p.holder[addr] = owner
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w in %v: all %d are taken", ErrExhausted, p.blocks, len(p.holder))
}

// TakeAddr gives owner this very address. It fails with *InUseError when somebody else holds it, and when it is not an
// address of the blocks that a container may have. The owner that has it already gets it again.
func (p *Pool) TakeAddr(addr netip.Addr, owner string) error {
	if holder, taken := p.holder[addr]; taken && holder != owner {
		return &InUseError{addr, holder}
	}
	if p.singles[addr] || slices.ContainsFunc(p.blocks, func(b netip.Prefix) bool { return usable(b, addr) }) {
		p.holder[addr] = owner
		return nil
	}
	return fmt.Errorf("%s is not an address for containers in this host's blocks %v", addr, p.blocks)
}

// Free returns an address of owner. Freeing one that he does not hold does nothing.
func (p *Pool) Free(addr netip.Addr, owner string) {
	if holder, taken := p.holder[addr]; taken && holder == owner {
		delete(p.holder, addr)
		if slices.ContainsFunc(p.blocks, func(b netip.Prefix) bool { return usable(b, addr) }) {
			p.freed = append(p.freed, addr)
		}
	}
}

// Used gives the number of addresses of the blocks that are taken.
func (p *Pool) Used() (n int) {
	for addr := range p.holder {
		if slices.ContainsFunc(p.blocks, func(b netip.Prefix) bool { return b.Contains(addr) }) {
			n++
		}
	}
	return n
}

// Size gives the number of addresses that containers can have.
func (p *Pool) Size() int {
	n := 0
	for _, b := range p.blocks {
		switch host := b.Addr().BitLen() - b.Bits(); {
		case host >= 31:
			n += 1<<31 - 1 // more than will ever be asked for
		case host >= 2:
			n += 1<<host - 3
		}
	}
	return n
}

// usable tells whether a container may have addr: not the network address, the host's own, or IPv4's broadcast.
func usable(block netip.Prefix, addr netip.Addr) bool {
	return block.Contains(addr) && addr != block.Addr() && addr != Node(block) && block.Contains(addr.Next())
}
