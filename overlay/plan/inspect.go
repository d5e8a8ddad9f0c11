package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Inspection is what there is of one attachment, on the host and in the container's namespace.
type Inspection struct {
	Link      Link
	HasLink   bool
	HostRoute []Route // to the container's address
	HostNeigh []Neigh // on the host link
	Table     *Table  // nil: absent, or not as we made it

	Inner    Link
	HasInner bool
	Addrs    []netip.Prefix
	Routes   []Route // on the container's interface
	Neighs   []Neigh
}

// Differences names everything in which i is not what a should be, one plain sentence each. It is empty when all is
// well. Additional addresses and routes in the container are the container's business.
func Differences(a Attachment, i Inspection) []string {
	var out []string
	miss := func(ok bool, format string, args ...any) {
		if !ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	switch {
	case !i.HasLink || i.Link.Retired:
		out = append(out, fmt.Sprintf("host link %s is gone", a.Link()))
	default:
		miss(i.Link.Up, "host link %s is down", a.Link())
		miss(i.Link.MTU == a.MTU, "host link %s has MTU %d, not %d", a.Link(), i.Link.MTU, a.MTU)
		for _, r := range HostRoutes(a) {
			miss(slices.Contains(i.HostRoute, r), "host route is missing: %s", r)
		}
		for _, n := range HostNeighs(a) {
			miss(slices.Contains(i.HostNeigh, n), "host neighbour is missing: %s", ReplaceNeigh{n})
		}
	}
	out = append(out, tableDifferences(elementsOf(a), i.Table)...)
	if !i.HasInner {
		return append(out, fmt.Sprintf("interface %s is gone from the container", a.IfName))
	}
	miss(i.Inner.Up, "container interface %s is down", a.IfName)
	miss(i.Inner.MTU == a.MTU, "container interface %s has MTU %d, not %d", a.IfName, i.Inner.MTU, a.MTU)
	miss(i.Inner.MAC == a.ContainerMAC(), "container interface %s has MAC %s, not %s", a.IfName, i.Inner.MAC, a.ContainerMAC())
	for _, addr := range a.Addrs() {
		miss(slices.Contains(i.Addrs, single(addr)), "container address %s is missing from %s", addr, a.IfName)
	}
	for _, r := range ContainerRoutes(a) {
		r.Src = netip.Addr{}
		miss(slices.ContainsFunc(i.Routes, func(have Route) bool {
			have.Src = netip.Addr{}
			return have == r
		}), "container route is missing: %s", r)
	}
	for _, n := range ContainerNeighs(a) {
		miss(slices.Contains(i.Neighs, n), "container neighbour is missing: %s", ReplaceNeigh{n})
	}
	return out
}

// tableDifferences names the elements that an attachment should have in the table and has not.
func tableDifferences(want Elements, have *Table) []string {
	if have == nil {
		return []string{fmt.Sprintf("nftables table inet %s, or a rule or set of it, is missing or changed", TableName)}
	}
	missing := want.missingFrom(have.Elements, false)
	if missing.empty() {
		return nil
	}
	return strings.Split("nftables element is missing: "+strings.ReplaceAll(missing.lines("add"), "\n", "\nnftables element is missing: "), "\n")
}
