package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func ourTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: plan.TableName}
}

func overlaySet() *nftables.Set {
	return &nftables.Set{Table: ourTable(), Name: "overlay", KeyType: nftables.TypeIPAddr, Interval: true}
}

func ourChains() []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return []*nftables.Chain{
		{
			Table: ourTable(), Name: "antispoof", Type: nftables.ChainTypeFilter, Policy: &accept,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
		},
		{
			Table: ourTable(), Name: "postrouting", Type: nftables.ChainTypeNAT, Policy: &accept,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		},
	}
}

// replaceTable puts our table in the place of whatever has its name, in one transaction: no packet meets half a table.
func replaceTable(t plan.Table) error {
	nft, err := nftables.New()
	if err != nil {
		return err
	}
	nft.AddTable(ourTable()) // deleting what is not there would fail the transaction
	nft.DelTable(ourTable())
	nft.AddTable(ourTable())
	set := overlaySet()
	if err := nft.AddSet(set, elements(t.Overlay)); err != nil {
		return err
	}
	for _, c := range ourChains() {
		nft.AddChain(c)
	}
	for _, r := range t.Rules() {
		for _, exprs := range expressions(r.Kind, set) {
			nft.AddRule(&nftables.Rule{
				Table: ourTable(), Chain: &nftables.Chain{Table: ourTable(), Name: r.Chain}, Exprs: exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.Text),
			})
		}
	}
	return nft.Flush()
}

// expressions gives the rules of a kind. They are what nft(8) compiles the rule's text to.
func expressions(kind plan.RuleKind, overlay *nftables.Set) [][]expr.Any {
	switch kind {
	case plan.Antispoof:
		var rules [][]expr.Any
		for _, group := range []uint32{plan.Group, plan.RetiredGroup} {
			rules = append(rules, []expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(group)},
				&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
				&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}},
				&expr.Counter{},
				&expr.Verdict{Kind: expr.VerdictDrop},
			})
		}
		return rules
	case plan.Masquerade:
		return [][]expr.Any{{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // source
			&expr.Lookup{SourceRegister: 1, SetName: overlay.Name, SetID: overlay.ID},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // destination
			&expr.Lookup{SourceRegister: 1, SetName: overlay.Name, SetID: overlay.ID, Invert: true},
			&expr.Masq{},
		}}
	}
	panic(fmt.Sprintf("no expressions for rule kind %d", kind))
}

// elements writes prefixes as the half-open intervals that the kernel keeps: a start, and an end that is not inside.
func elements(prefixes []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for _, p := range prefixes {
		out = append(out,
			nftables.SetElement{Key: p.Addr().AsSlice()},
			nftables.SetElement{Key: after(p).AsSlice(), IntervalEnd: true})
	}
	return out
}

// after gives the first address behind a prefix.
func after(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b).Next()
}

// observeTable gives our table's content, or nil when there is none or its chains and rules are not as we made them.
func observeTable() (*plan.Table, error) {
	nft, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := nft.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	var names, rules []string
	for _, c := range chains {
		if c.Table.Name != plan.TableName {
			continue
		}
		names = append(names, c.Name)
		list, err := nft.GetRules(ourTable(), c)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			rules = append(rules, c.Name+": "+text)
		}
	}
	if !slices.Equal(names, wantChains()) || !slices.Equal(rules, wantRules()) {
		return nil, nil
	}
	elements, err := nft.GetSetElements(overlaySet())
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &plan.Table{Overlay: prefixes(elements)}, nil
}

func wantChains() (names []string) {
	for _, c := range ourChains() {
		names = append(names, c.Name)
	}
	return names
}

func wantRules() (rules []string) {
	for _, r := range (plan.Table{}).Rules() {
		for range expressions(r.Kind, overlaySet()) {
			rules = append(rules, r.Chain+": "+r.Text)
		}
	}
	return rules
}

// prefixes is the reverse of elements. An interval that is no prefix (somebody added it) becomes the zero prefix, which
// no wanted table has.
func prefixes(elements []nftables.SetElement) []netip.Prefix {
	var starts, ends []netip.Addr
	for _, e := range elements {
		a, _ := netip.AddrFromSlice(e.Key)
		if e.IntervalEnd {
			ends = append(ends, a)
		} else {
			starts = append(starts, a)
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	slices.SortFunc(ends, netip.Addr.Compare)
	// The kernel adds an end at 0.0.0.0 before the first interval.
	if len(ends) > len(starts) {
		ends = ends[len(ends)-len(starts):]
	}
	var out []netip.Prefix
	for i, start := range starts {
		out = append(out, between(start, ends, i))
	}
	return out
}

func between(start netip.Addr, ends []netip.Addr, i int) netip.Prefix {
	for bits := range 33 {
		p := netip.PrefixFrom(start, bits)
		if p.Masked() == p && i < len(ends) && after(p) == ends[i] {
			return p
		}
	}
	return netip.Prefix{}
}
