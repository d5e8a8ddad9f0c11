package kernel

import (
	"fmt"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func ourTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: plan.TableName}
}

// ourChains gives the base chains and those that they turn to; nft(8), "Chains", has the order in which hooks and
// priorities are met.
func ourChains() []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Table: ourTable(), Name: name, Type: typ, Hooknum: hook, Priority: prio, Policy: &accept}
	}
	out := []*nftables.Chain{
		chain(plan.ChainAntispoof, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw),
		chain(plan.ChainPorts, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		chain(plan.ChainOwnPorts, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
		chain(plan.ChainShield, nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter),
		chain(plan.ChainIsolate, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter),
		chain(plan.ChainLeave, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
		chain(plan.ChainUntrack, nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw),
	}
	for _, name := range []string{plan.ChainContainers, plan.ChainPeers, plan.ChainOuter, plan.ChainHostContainers, plan.ChainHostPeers} {
		out = append(out, &nftables.Chain{Table: ourTable(), Name: name})
	}
	return out
}

// replacing is held while a table is made: the library numbers sets by a global that it does not guard.
var replacing sync.Mutex

// replaceTable puts our table in the place of whatever has its name, in one transaction: no packet meets half a table.
func replaceTable(t plan.Table) error {
	replacing.Lock()
	defer replacing.Unlock()
	nft, err := nftables.New()
	if err != nil {
		return err
	}
	nft.AddTable(ourTable()) // deleting what is not there would fail the transaction
	nft.DelTable(ourTable())
	nft.AddTable(ourTable())
	content := encode(t)
	for _, set := range ourSets() {
		if err := nft.AddSet(set, nil); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
		if err := addElements(nft, set, content[set.Name]); err != nil {
			return err
		}
	}
	for _, c := range ourChains() {
		nft.AddChain(c)
	}
	for _, r := range plan.Rules() {
		nft.AddRule(&nftables.Rule{
			Table: ourTable(), Chain: &nftables.Chain{Table: ourTable(), Name: r.Chain}, Exprs: expressions(r),
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.Text),
		})
	}
	return nft.Flush()
}

// observeTable gives our table's content, or nil when there is none, or its chains, rules and sets are not as we made
// them.
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
	return observeSets(nft)
}

func wantChains() (names []string) {
	for _, c := range ourChains() {
		names = append(names, c.Name)
	}
	return names
}

func wantRules() (rules []string) {
	for _, c := range ourChains() {
		for _, r := range plan.Rules() {
			if r.Chain == c.Name {
				rules = append(rules, r.Chain+": "+r.Text)
			}
		}
	}
	return rules
}
