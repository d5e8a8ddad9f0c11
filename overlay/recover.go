package overlay

import (
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// recovery is what a start finds: attachments that stand, and those that are to be ended.
type recovery struct {
	keep    []plan.Attachment
	adopted []plan.Attachment // of keep: in the kernel, but not in the journal (its tail was lost)
	end     []plan.Attachment
}

// recovered decides from the journal and the kernel what became of each attachment. A link with an alias is complete,
// because the alias is written last. A link that the journal does not know is adopted: its alias says all that is
// needed. A journal entry without a complete link is of an attach that nobody got an answer to, or of a container
// whose namespace is gone.
func recovered(journal map[plan.Key]remembered, have plan.Observed, networks []plan.Network) recovery {
	var r recovery
	complete := map[string]plan.Attachment{}
	for _, l := range have.Links {
		// One that somebody renamed is given its name back by plan.Steps.
		if a, ok := plan.ParseAlias(l.Alias); ok && !l.Retired && a.Link() == have.NameOf(l) {
			a.MTU = l.MTU
			complete[a.Link()] = a
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(journal), compareKeys) {
		m := journal[key]
		seen, ok := complete[key.Link()]
		delete(complete, key.Link())
		if ok && !m.leaving && seen.Addr == m.Addr && seen.Addr6 == m.Addr6 && seen.Network == m.Network {
			if i := networkIndex(networks, m.Network); i >= 0 {
				m.Node, m.Node6 = networks[i].Node, networks[i].Node6 // the configuration may have changed meanwhile
			}
			r.keep = append(r.keep, m.Attachment)
		} else {
			r.end = append(r.end, m.Attachment)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(complete)) {
		a := complete[name]
		i := networkIndex(networks, a.Network)
		if i < 0 {
			continue // of a network that is no longer configured: plan.Steps removes the link
		}
		n := networks[i]
		a.Node, a.Node6, a.Reach, a.Reach6 = n.Node, n.Node6, n.CIDR, n.CIDR6
		a.Default = isFirst(a.Key, r.keep)
		a.Default6 = a.Default && a.Addr6.IsValid()
		a = withElements(a, have.Table)
		r.keep, r.adopted = append(r.keep, a), append(r.adopted, a)
	}
	return r
}

// withElements gives an adopted attachment the ports and the MAC that the table has for it.
func withElements(a plan.Attachment, t *plan.Table) plan.Attachment {
	if t == nil {
		return a
	}
	a.Ports = plan.Adopted(a, t.Forwards)
	for _, l := range t.Links {
		if l.Dev == a.Link() && l.MAC != a.ContainerMAC() {
			a.MAC = l.MAC
		}
	}
	return a
}

func networkIndex(networks []plan.Network, name string) int {
	return slices.IndexFunc(networks, func(n plan.Network) bool { return n.Name == name })
}

// isFirst tells whether no attachment of the same owner is in list: the first one has the default route.
func isFirst(key plan.Key, list []plan.Attachment) bool {
	return !slices.ContainsFunc(list, func(a plan.Attachment) bool { return a.Owner == key.Owner })
}

func compareKeys(a, b plan.Key) int {
	return strings.Compare(a.String(), b.String())
}
