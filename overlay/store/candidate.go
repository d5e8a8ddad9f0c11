package store

import (
	"hash/fnv"
	"math"
	"math/big"
	"net/netip"
)

// blocksOf counts the blocks of bits length in cidr, at most MaxInt32.
func blocksOf(cidr netip.Prefix, bits int) int {
	if n := bits - cidr.Bits(); n < 31 {
		return 1 << n
	}
	return math.MaxInt32
}

// blockAt gives the i-th block of bits length in cidr.
func blockAt(cidr netip.Prefix, bits, i int) netip.Prefix {
	base := new(big.Int).SetBytes(cidr.Masked().Addr().AsSlice())
	base.Add(base, new(big.Int).Lsh(big.NewInt(int64(i)), uint(cidr.Addr().BitLen()-bits)))
	raw := make([]byte, cidr.Addr().BitLen()/8)
	addr, _ := netip.AddrFromSlice(base.FillBytes(raw)) // four or sixteen bytes
	return netip.PrefixFrom(addr, bits)
}

// candidate gives the first block of cidr that is not taken. Where it begins to look depends on the node's name, so that
// hundred nodes that join at once seldom want the same one.
func candidate(node string, cidr netip.Prefix, bits int, taken func(netip.Prefix) bool) (netip.Prefix, bool) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node)) // a hash takes everything
	n := blocksOf(cidr, bits)
	start := int(h.Sum64() % uint64(n))
	for i := range n {
		if b := blockAt(cidr, bits, (start+i)%n); !taken(b) {
			return b, true
		}
	}
	return netip.Prefix{}, false
}
