package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// ipFamily is how one family of addresses looks to nftables.
type ipFamily struct {
	suffix  string // of the names of sets
	proto   byte
	gateway netip.Addr
	addr    nftables.SetDatatype
	len     uint32 // bytes of an address
	srcAt   uint32 // where the source address is in the header; the destination follows (RFC 791, RFC 8200)
}

var (
	families4 = ipFamily{"4", unix.NFPROTO_IPV4, plan.Gateway, nftables.TypeIPAddr, 4, 12}
	families6 = ipFamily{"6", unix.NFPROTO_IPV6, plan.Gateway6, nftables.TypeIP6Addr, 16, 8}
)

func familyOf(a netip.Addr) ipFamily {
	if a.Is4() {
		return families4
	}
	return families6
}

// ourSets gives the table's sets and maps without their elements.
func ourSets() []*nftables.Set {
	concat := nftables.MustConcatSetType
	out := []*nftables.Set{
		{Name: "links", KeyType: concat(nftables.TypeIFName, nftables.TypeEtherAddr), Concatenation: true},
		{Name: "tunnels", KeyType: concat(nftables.TypeInetService, nftables.TypeMark), Concatenation: true},
		{Name: "direct", KeyType: concat(nftables.TypeEtherAddr, nftables.TypeIPAddr), Interval: true, Concatenation: true},
	}
	for _, f := range []ipFamily{families4, families6} {
		proto, port := nftables.TypeInetProto, nftables.TypeInetService
		out = append(out,
			&nftables.Set{Name: "vteps" + f.suffix, KeyType: f.addr},
			&nftables.Set{Name: "overlay" + f.suffix, KeyType: f.addr, Interval: true},
			&nftables.Set{Name: "pairs" + f.suffix, KeyType: concat(f.addr, f.addr), Interval: true, Concatenation: true},
			&nftables.Set{Name: "open" + f.suffix, KeyType: f.addr, Interval: true},
			&nftables.Set{Name: "disowned" + f.suffix, KeyType: concat(nftables.TypeEtherAddr, f.addr), Interval: true, Concatenation: true},
			&nftables.Set{Name: "hairpin" + f.suffix, KeyType: concat(f.addr, f.addr), Concatenation: true},
			&nftables.Set{Name: "on" + f.suffix, KeyType: concat(f.addr, proto, port), DataType: concat(f.addr, port), IsMap: true, Concatenation: true},
			&nftables.Set{Name: "any" + f.suffix, KeyType: concat(proto, port), DataType: concat(f.addr, port), IsMap: true, Concatenation: true},
		)
	}
	for _, s := range out {
		s.Table = ourTable()
	}
	return out
}

// encode gives the elements of each set of a table.
func encode(t plan.Table) map[string][]nftables.SetElement {
	out := encodeElements(t.Elements)
	intervals := func(name string, list []netip.Prefix) {
		for _, p := range list {
			set := name + familyOf(p.Addr()).suffix
			out[set] = append(out[set], nftables.SetElement{Key: p.Addr().AsSlice()}, nftables.SetElement{Key: after(p).AsSlice(), IntervalEnd: true})
		}
	}
	intervals("overlay", t.Overlay)
	intervals("open", t.Open)
	for _, u := range t.Tunnels {
		key := binary.BigEndian.AppendUint32(withPort(nil, u.Port), u.VNI<<8) // as it is in the header, RFC 7348: a reserved byte follows
		out["tunnels"] = append(out["tunnels"], nftables.SetElement{Key: key})
	}
	for _, p := range t.Pairs {
		set := "pairs" + familyOf(p.From.Addr()).suffix
		out[set] = append(out[set], nftables.SetElement{
			Key:    slices.Concat(p.From.Addr().AsSlice(), p.To.Addr().AsSlice()),
			KeyEnd: slices.Concat(last(p.From).AsSlice(), last(p.To).AsSlice()),
		})
	}
	return out
}

// encodeElements gives those that an attachment has, by set. Each part of a concatenation is filled up to 4 bytes.
func encodeElements(e plan.Elements) map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	for _, l := range e.Links {
		key := make([]byte, 24)
		copy(key, l.Dev)
		copy(key[16:], l.MAC[:])
		out["links"] = append(out["links"], nftables.SetElement{Key: key})
	}
	for _, f := range e.Forwards {
		host, set := f.Host.Addr(), "on"
		key := host.AsSlice()
		if host.IsUnspecified() {
			key, set = nil, "any"
		}
		set += familyOf(host).suffix
		key = append(key, byte(f.Protocol), 0, 0, 0)
		out[set] = append(out[set], nftables.SetElement{Key: withPort(key, f.Host.Port()), Val: withPort(f.To.Addr().AsSlice(), f.To.Port())})
	}
	for _, a := range e.Hairpins {
		set := "hairpin" + familyOf(a).suffix
		out[set] = append(out[set], nftables.SetElement{Key: slices.Concat(a.AsSlice(), a.AsSlice())})
	}
	for _, a := range e.VTEPs {
		set := "vteps" + familyOf(a).suffix
		out[set] = append(out[set], nftables.SetElement{Key: a.AsSlice()})
	}
	macBlock := func(set string, d plan.MACBlock) {
		mac := append(d.MAC[:], 0, 0)
		out[set] = append(out[set], nftables.SetElement{
			Key: slices.Concat(mac, d.Block.Addr().AsSlice()), KeyEnd: slices.Concat(mac, last(d.Block).AsSlice()),
		})
	}
	for _, d := range e.Direct {
		macBlock("direct", d)
	}
	for _, d := range e.Disowned {
		macBlock("disowned"+familyOf(d.Block.Addr()).suffix, d)
	}
	return out
}

func withPort(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// observeSets reads the table's content, or gives nil when a set is missing.
func observeSets(nft *nftables.Conn) (*plan.Table, error) {
	t := &plan.Table{}
	for _, set := range ourSets() {
		elements, err := nft.GetSetElements(set)
		if errors.Is(err, unix.ENOENT) || err != nil && strings.Contains(err.Error(), unix.ENOENT.Error()) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", set.Name, err)
		}
		decode(t, set.Name, elements)
	}
	t.Sort()
	return t, nil
}

// decode is the reverse of encode for one set. What somebody else put in becomes what no wanted table has.
func decode(t *plan.Table, set string, elements []nftables.SetElement) {
	f := families4
	if strings.HasSuffix(set, families6.suffix) {
		f = families6
	}
	n := int(f.len)
	for _, e := range elements {
		switch strings.TrimRight(set, "46") {
		case "links":
			l := plan.LinkMAC{Dev: strings.TrimRight(string(e.Key[:16]), "\x00")}
			copy(l.MAC[:], e.Key[16:])
			t.Links = append(t.Links, l)
		case "tunnels":
			t.Tunnels = append(t.Tunnels, plan.Tunnel{Port: binary.BigEndian.Uint16(e.Key), VNI: binary.BigEndian.Uint32(e.Key[4:]) >> 8})
		case "vteps":
			t.VTEPs = append(t.VTEPs, ip(e.Key))
		case "direct":
			t.Direct = append(t.Direct, macBlock(e))
		case "disowned":
			t.Disowned = append(t.Disowned, macBlock(e))
		case "pairs":
			t.Pairs = append(t.Pairs, plan.Pair{From: spanning(e.Key[:n], e.KeyEnd[:n]), To: spanning(e.Key[n:], e.KeyEnd[n:])})
		case "hairpin":
			t.Hairpins = append(t.Hairpins, ip(e.Key[:n]))
		case "on":
			t.Forwards = append(t.Forwards, forward(ip(e.Key[:n]), e.Key[n:], e.Val, n))
		case "any":
			any := netip.IPv4Unspecified()
			if f.len == 16 {
				any = netip.IPv6Unspecified()
			}
			t.Forwards = append(t.Forwards, forward(any, e.Key, e.Val, n))
		}
	}
	switch strings.TrimRight(set, "46") {
	case "overlay":
		t.Overlay = append(t.Overlay, prefixes(elements)...)
	case "open":
		t.Open = append(t.Open, prefixes(elements)...)
	}
}

func macBlock(e nftables.SetElement) plan.MACBlock {
	d := plan.MACBlock{Block: spanning(e.Key[8:], e.KeyEnd[8:])}
	copy(d.MAC[:], e.Key)
	return d
}

// forward reads the rest of a key, protocol and port, and a value, address and port.
func forward(host netip.Addr, key, val []byte, n int) plan.Forward {
	return plan.Forward{
		Host: netip.AddrPortFrom(host, binary.BigEndian.Uint16(key[4:])), Protocol: plan.Transport(key[0]),
		To: netip.AddrPortFrom(ip(val[:n]), binary.BigEndian.Uint16(val[n:])),
	}
}

func ip(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// last gives the last address of a prefix, after the one behind it.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return ip(b)
}

func after(p netip.Prefix) netip.Addr { return last(p).Next() }

// prefixes reads half-open intervals, as the kernel keeps them: a start, and an end that is not inside.
func prefixes(elements []nftables.SetElement) []netip.Prefix {
	var starts, ends []netip.Addr
	for _, e := range elements {
		if e.IntervalEnd {
			ends = append(ends, ip(e.Key))
		} else {
			starts = append(starts, ip(e.Key))
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	slices.SortFunc(ends, netip.Addr.Compare)
	// The kernel adds an end at the lowest address before the first interval.
	if len(ends) > len(starts) {
		ends = ends[len(ends)-len(starts):]
	}
	var out []netip.Prefix
	for i, start := range starts {
		if i < len(ends) {
			out = append(out, spanning(start.AsSlice(), ends[i].Prev().AsSlice()))
		}
	}
	return out
}

// spanning gives the prefix from first to last. An interval that is no prefix (somebody added it) becomes the zero
// prefix, which no wanted table has.
func spanning(first, end []byte) netip.Prefix {
	start := ip(first)
	for bits := range start.BitLen() + 1 {
		if p := netip.PrefixFrom(start, bits); p.Masked() == p && last(p) == ip(end) {
			return p
		}
	}
	return netip.Prefix{}
}
