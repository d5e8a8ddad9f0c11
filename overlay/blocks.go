package overlay

import (
	"net/netip"
	"slices"
)

// blocks are those of many peers, by prefix: to compare each with each would take longer than all else of a start.
type blocks struct {
	peers []Peer
	first map[netip.Prefix]blockAt // who lists a prefix first
	bits  []int                    // the lengths that there are
}

// blockAt is where a block is listed: peer and number.
type blockAt struct{ peer, block int }

func heldBlocks(peers []Peer) blocks {
	h := blocks{peers, map[netip.Prefix]blockAt{}, nil}
	for i, p := range peers {
		for k, b := range p.Blocks {
			if _, twice := h.first[b]; twice {
				continue
			}
			h.first[b] = blockAt{i, k}
			if !slices.Contains(h.bits, b.Bits()) {
				h.bits = append(h.bits, b.Bits())
			}
		}
	}
	return h
}

// around gives a block that b, which is listed at a place, is or lies within, and whose it is; nil when there is none but b
// itself.
func (h blocks) around(b netip.Prefix, at blockAt) (netip.Prefix, *Peer) {
	for _, bits := range h.bits {
		outer, err := b.Addr().Prefix(bits)
		if first, held := h.first[outer]; err == nil && bits <= b.Bits() && held && first != at {
			return outer, &h.peers[first.peer]
		}
	}
	return netip.Prefix{}, nil
}
