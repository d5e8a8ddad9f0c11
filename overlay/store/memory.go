package store

import (
	"fmt"
	"maps"
)

// memory is what a node knows by itself and keeps in its state directory. It outlives crashes and the store's absence;
// whether a lease is older or newer is judged by it.
type memory struct {
	ID      string `json:"id"` // Identity.ID
	By      string `json:"by"` // as which this node was registered last
	Lineage string `json:"lineage"`
	Epoch   uint64 `json:"epoch"`
	Token   string `json:"token"`
	Rev     int64  `json:"rev"` // the highest seen in this epoch
	// Nodes and Networks are as last seen. Of those in Lost the store knew nothing after its epoch rose.
	Nodes    map[string]Identity `json:"nodes"`
	Networks map[string]Network  `json:"networks"`
	Lost     map[string]bool     `json:"lost,omitempty"`
	// Leases are, by key, those with the highest fence that was ever seen.
	Leases map[string]Lease `json:"leases"`
}

// restored says why v cannot be the store that m knows at an earlier time: it was restored from a snapshot, or is
// another one. Then nothing of v is believed until its epoch has been raised. Empty: it can be.
func (m *memory) restored(v *view) string {
	e, ok := get[epochRecord](v, epochKey)
	switch {
	case !ok:
		return "it has no epoch"
	case e.Cluster != v.cluster:
		return "its cluster id changed"
	case e.Lineage != m.Lineage || e.Epoch > m.Epoch:
		return ""
	case e.Epoch < m.Epoch:
		return "its epoch went back"
	case e.Token != m.Token:
		return "its epoch is of another history"
	case v.rev < m.Rev:
		return "its revision went back"
	}
	for key, known := range m.Leases {
		_, created, there := v.network(known.Network)
		if !there || created > known.Fence.Rev || known.Fence.Epoch != e.Epoch {
			continue
		}
		if now, ok := v.lease(key); v.item(key).err == nil && (!ok || now.Fence.Compare(known.Fence) < 0 || now.Fence == known.Fence && now.By != known.By) {
			return fmt.Sprintf("the lease %s of %s is gone", known.Block, known.Holder)
		}
	}
	return ""
}

// learn takes over what v teaches. It must not be restored. It tells whether anything changed that is a promise: what
// this node holds, or the epoch.
func (m *memory) learn(v *view, self string) (promise bool) {
	e, _ := get[epochRecord](v, epochKey)
	switch {
	case e.Lineage != m.Lineage:
		m.adopt(e, self)
		m.lose(v)
		promise = true
	case e.Epoch > m.Epoch:
		m.Epoch, m.Token, m.Rev, promise = e.Epoch, e.Token, 0, true
		m.lose(v)
	}
	m.Rev = max(m.Rev, v.rev)
	m.learnNetworks(v, self)
	for name := range v.dirs[blocksDir] {
		now, ok := v.lease(blocksDir + name)
		if !ok {
			continue
		}
		known, before := m.Leases[blocksDir+name]
		if n, there := m.Networks[now.Network]; !there || !n.has(now.Block) || before && now.Fence.Compare(known.Fence) <= 0 {
			continue
		}
		m.Leases[blocksDir+name] = now.learntAfter(known)
		promise = promise || known.Holder == self || now.Holder == self
	}
	m.learnNodes(v)
	return promise
}

// adopt begins anew with another store. Of what was known only our own leases are kept, older than any there.
func (m *memory) adopt(e epochRecord, self string) {
	known := m.Leases
	*m = memory{ID: m.ID, By: m.By, Lineage: e.Lineage, Epoch: e.Epoch, Token: e.Token, Leases: map[string]Lease{}, Networks: m.Networks}
	for key, l := range known {
		if l.Holder == self {
			l.Fence = Fence{}
			m.Leases[key] = l
		}
	}
}

// lose notes the networks that a restored store has lost.
func (m *memory) lose(v *view) {
	m.Lost = map[string]bool{}
	for name := range m.Networks {
		if _, _, there := v.network(name); !there {
			m.Lost[name] = true
		}
	}
}

// learnNetworks takes the networks of v and those that were lost: for one grace period, and for as long as this node
// holds a block of one, for it will make it again.
func (m *memory) learnNetworks(v *view, self string) {
	before := m.Networks
	if !v.grace() {
		maps.DeleteFunc(m.Lost, func(name string, _ bool) bool { return !m.holdsIn(name, self) })
	}
	m.Networks = map[string]Network{}
	for name, n := range under[Network](v, networksDir) {
		m.Networks[name] = n
		delete(m.Lost, name)
	}
	for name := range m.Lost {
		m.Networks[name] = before[name]
	}
	maps.DeleteFunc(m.Leases, func(_ string, l Lease) bool {
		n, there := m.Networks[l.Network]
		_, created, _ := v.network(l.Network)
		earlier := l.Fence.Epoch == m.Epoch && created > l.Fence.Rev // of a network of that name that was removed
		return !there || !n.has(l.Block) || earlier
	})
}

func (m *memory) holdsIn(network, self string) bool {
	for _, l := range m.Leases {
		if l.Network == network && l.Holder == self {
			return true
		}
	}
	return false
}

// learnNodes keeps, beside the nodes of v, those that hold blocks: a restored store may not know them any more.
func (m *memory) learnNodes(v *view) {
	before := m.Nodes
	m.Nodes = map[string]Identity{}
	for _, l := range m.Leases {
		if n, ok := before[l.Holder]; ok {
			m.Nodes[l.Holder] = n
		}
	}
	for name, n := range under[Identity](v, nodesDir) {
		n.Name = name
		m.Nodes[name] = n
	}
}
