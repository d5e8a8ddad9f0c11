package overlay

import (
	"fmt"
	"net/netip"
)

// FixedRange is the part of a network's CIDR in which each address is leased by itself, so that a container takes it along
// from host to host. The zero value stands for the default.
type FixedRange struct {
	Prefix netip.Prefix
	None   bool
}

// String is how the configuration has it.
func (f FixedRange) String() string {
	b, _ := f.MarshalText() // never fails
	return string(b)
}

// MarshalText writes a prefix, "none", or nothing for the default.
func (f FixedRange) MarshalText() ([]byte, error) {
	switch {
	case f.None:
		return []byte("none"), nil
	case !f.Prefix.IsValid():
		return nil, nil
	}
	return f.Prefix.MarshalText()
}

// UnmarshalText reads what MarshalText writes.
func (f *FixedRange) UnmarshalText(text []byte) error {
	*f = FixedRange{None: string(text) == "none"}
	if f.None || len(text) == 0 {
		return nil
	}
	if err := f.Prefix.UnmarshalText(text); err != nil {
		return fmt.Errorf("expected a prefix such as 10.42.240.0/20, or none, found %q", text)
	}
	return nil
}

// of gives the range in a CIDR whose blocks have a length: what was said, else the last sixteenth, when that is whole
// blocks; invalid: none.
func (f FixedRange) of(cidr netip.Prefix, block int) netip.Prefix {
	sixteenth := cidr.Bits() + 4
	switch {
	case f.None || !cidr.IsValid():
		return netip.Prefix{}
	case f.Prefix.IsValid():
		return f.Prefix
	case sixteenth > block:
		return netip.Prefix{}
	}
	b := cidr.Masked().Addr().AsSlice()
	for bit := cidr.Bits(); bit < sixteenth; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(b) // four or sixteen bytes
	return netip.PrefixFrom(addr, sixteenth)
}

// fault says what is wrong with the range; empty: nothing.
func (f FixedRange) fault(cidr netip.Prefix, block int) string {
	p := f.Prefix
	switch {
	case !p.IsValid():
		return ""
	case p != p.Masked():
		return fmt.Sprintf("%s has bits set behind its length; did you mean %s?", p, p.Masked())
	case !cidr.IsValid() || !cidr.Contains(p.Addr()) || p.Bits() <= cidr.Bits():
		return fmt.Sprintf("%s is not a part of the network's addresses %s", p, cidr)
	case block <= cidr.Bits():
		return fmt.Sprintf("%s leaves no block for hosts: they are /%d", p, block)
	}
	return ""
}

// fixedRanges are the parts of the CIDRs in which addresses are leased one by one.
func (n Network) fixedRanges() (four, six netip.Prefix) {
	b4, b6 := n.blockLengths()
	return n.Fixed.of(n.CIDR, b4), n.Fixed6.of(n.CIDR6, b6)
}
