// Package store is where an overlay learns which hosts there are and which address blocks each holds.
//
// Stores sit behind one interface: Local (one host, the default), Static (hosts listed in the configuration) and Etcd
// (an existing etcd cluster, which also shares networks and leases address blocks). The first two keep nothing. Etcd
// keeps what it last knew in the state directory, so that the agent starts while etcd is away; its protocol's decisions
// are pure (node.go), and what it writes carries its conditions (Txn), so that a crash between two writes is a state
// like any other.
package store

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
)

// Node is one host of the cluster. Its name is its identity.
type Node struct {
	Name   string
	Addr   netip.Addr     // on the underlay; invalid for a single host
	Blocks []netip.Prefix // of any network, single addresses too; CIDRs of networks do not overlap, so a block tells its network
	Silent bool           // its agent has no session with the store; what it has stays
	// Lost are blocks that it held and may still believe to hold, while others hold them.
	Lost []netip.Prefix
}

// Cluster is all that is known at one moment. It is not modified after it was published.
type Cluster struct {
	Self  Node
	Peers []Node
	Alone bool // a single host, which holds the whole of every network
	// Networks are those of the store, when it shares them (Shared); else each host has its own list.
	Networks []Network
	// Problem says why this host does not hold what it should; empty when all is well.
	Problem string
}

// Network is what a store knows of an overlay network that it shares.
type Network struct {
	Name  string       `json:"name"`
	CIDR  netip.Prefix `json:"cidr"`
	CIDR6 netip.Prefix `json:"cidr6,omitzero"`
	VNI   uint32       `json:"vni"`
	// Block and Block6 are the lengths of the blocks that are leased.
	Block  int `json:"block"`
	Block6 int `json:"block6,omitempty"`
	// Fixed and Fixed6 are the parts of the CIDRs in which no block is leased, but each address by itself (Shared.Claim).
	Fixed  netip.Prefix `json:"fixed,omitzero"`
	Fixed6 netip.Prefix `json:"fixed6,omitzero"`
	// Spec is all of it, as the overlay wrote it; a store does not look inside.
	Spec json.RawMessage `json:"spec"`
}

// cidrs gives each CIDR with the length of its blocks, IPv4 first.
func (n Network) cidrs() iter.Seq2[netip.Prefix, int] {
	return func(yield func(netip.Prefix, int) bool) {
		if yield(n.CIDR, n.Block) && n.CIDR6.IsValid() {
			yield(n.CIDR6, n.Block6)
		}
	}
}

// has tells whether b is a block of n.
func (n Network) has(b netip.Prefix) bool {
	for cidr, bits := range n.cidrs() {
		if b.Bits() == bits && cidr.Contains(b.Addr()) {
			return !n.Fixed.Overlaps(b) && !n.Fixed6.Overlaps(b)
		}
	}
	return b.IsSingleIP() && n.IsFixed(b.Addr())
}

// Store tells the cluster's state.
type Store interface {
	// Name is the word in the configuration: "local", "static", "etcd".
	Name() string
	// Follow calls publish with the whole state, at once and after each change, until ctx ends. It blocks. An error
	// means that the store cannot be reached and that nothing was ever known; once something was published it stays
	// valid, and Follow goes on trying. One Follow runs at a time.
	Follow(ctx context.Context, publish func(Cluster)) error
}

// Shared is a store that shares networks among hosts and leases them address blocks. Its methods are safe for
// concurrent use; each blocks until the store has answered or ctx ends.
type Shared interface {
	Store
	// Present says who this host is; it is called before Follow.
	Present(Identity)
	// Want says what this host needs: networks that there should be, blocks of them, and which it uses. It does not
	// block; Follow brings it about.
	Want(Wants)
	// Claim makes one address of a fixed range this host's, for as long as Wants has it: the caller sees to it that it has
	// already. It returns nil at once, whether or not the store answers, when the address is this host's; else when the
	// cluster that was published has it. It fails with *HeldError when another host holds it, and with ErrGrace or ErrAway.
	Claim(ctx context.Context, c Claim) error
	// CreateNetwork makes n for all hosts, after check has agreed with all that there are at that moment.
	CreateNetwork(ctx context.Context, n Network, check func(there []Network) error) error
	// RemoveNetwork takes a network away from all hosts. It fails while one of them uses it.
	RemoveNetwork(ctx context.Context, name string) error
	// ForgetNode gives a dead node's blocks back. It fails for one that is alive.
	ForgetNode(ctx context.Context, name string) error
	// Leave gives this host's own blocks back; it joins again when Follow is called anew.
	Leave(ctx context.Context) error
}

// Identity is who a node is. Its name holds blocks; machine, boot and id tell two that bear one name apart.
type Identity struct {
	Name    string     `json:"-"`
	Machine string     `json:"machine"` // machine-id(5), for people: a cloned image has the same
	Boot    string     `json:"boot"`    // of this boot; random(4)
	ID      string     `json:"id"`      // random, made with the state directory
	Addr    netip.Addr `json:"address"` // on the underlay
	Agent   string     `json:"agent"`   // version
}

// by is what is written into a lease: one agent's state directory in one boot. Two living machines never share it.
func (i Identity) by() string { return i.ID + "/" + i.Boot }

func (i Identity) String() string {
	return fmt.Sprintf("%s (machine id %s, boot id %s, address %s)", i.Name, i.Machine, i.Boot, i.Addr)
}

// Wants is what a node needs from a shared store.
type Wants struct {
	Networks []Network      // made where there is none of that name
	Blocks   map[string]int // IPv4 blocks of a network; one where it is not said
	Uses     []string       // networks that have containers here
	// Fixed are the addresses of fixed ranges that are in use here: others are given back. nil: none is, yet.
	Fixed []netip.Addr
}

// Local is a cluster of one: this host holds the whole of every network.
func Local(node string) Store {
	return local{Cluster{Self: Node{Name: node}, Alone: true}}
}

type local struct{ cluster Cluster }

func (local) Name() string { return "local" }

func (l local) Follow(ctx context.Context, publish func(Cluster)) error {
	publish(l.cluster)
	<-ctx.Done()
	return nil
}

// Static is a cluster that the configuration lists, the same list on every host. The entry with this node's name is
// this host. It is safe for concurrent use.
type Static struct {
	self string

	mu      sync.Mutex
	cluster Cluster
	changed chan struct{} // closed, and replaced, at each change
}

// NewStatic makes a Static of the listed hosts, among which the node self must be.
func NewStatic(self string, nodes []Node) (*Static, error) {
	c, err := listed(self, nodes)
	if err != nil {
		return nil, err
	}
	return &Static{self: self, cluster: c, changed: make(chan struct{})}, nil
}

// Set replaces the list. This host's own entry must stay as it is: its containers have its addresses.
func (s *Static) Set(nodes []Node) error {
	c, err := listed(s.self, nodes)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.cluster.Self; old.Addr != c.Self.Addr || !slices.Equal(old.Blocks, c.Self.Blocks) {
		return fmt.Errorf("overlay.peers: the entry of this node, %q, changed; that needs a restart of the agent", s.self)
	}
	s.cluster = c
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func listed(self string, nodes []Node) (Cluster, error) {
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == self })
	if i < 0 {
		return Cluster{}, fmt.Errorf("overlay.peers: this node, %q, is not listed; add it with its address and blocks, or set node.name", self)
	}
	return Cluster{Self: nodes[i], Peers: slices.Delete(slices.Clone(nodes), i, i+1)}, nil
}

// Name is "static".
func (s *Static) Name() string { return "static" }

// Follow publishes the list, and again after each Set.
func (s *Static) Follow(ctx context.Context, publish func(Cluster)) error {
	for {
		s.mu.Lock()
		c, changed := s.cluster, s.changed
		s.mu.Unlock()
		publish(c)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
