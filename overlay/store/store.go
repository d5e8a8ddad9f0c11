// Package store is where an overlay learns which hosts there are and which address blocks each holds.
//
// Stores sit behind one interface: Local (one host, the default) and Static (hosts listed in the configuration).
// Neither keeps anything of its own, so there is nothing to bring back after a crash.
package store

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Node is one host of the cluster. Its name is its identity.
type Node struct {
	Name   string
	Addr   netip.Addr     // on the underlay; invalid for a single host
	Blocks []netip.Prefix // of any network; CIDRs of networks do not overlap, so a block tells its network
}

// Cluster is all that is known at one moment. It is not modified after it was published.
type Cluster struct {
	Self  Node
	Peers []Node
	Alone bool // a single host, which holds the whole of every network
}

// Store tells the cluster's state.
type Store interface {
	// Name is the word in the configuration: "local", "static".
	Name() string
	// Follow calls publish with the whole state, at once and after each change, until ctx ends. It blocks. An error
	// means that the store cannot be reached; what was published last stays valid meanwhile.
	Follow(ctx context.Context, publish func(Cluster)) error
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
	c, err := split(self, nodes)
	if err != nil {
		return nil, err
	}
	return &Static{self: self, cluster: c, changed: make(chan struct{})}, nil
}

// Set replaces the list. This host's own entry must stay as it is: its containers have its addresses.
func (s *Static) Set(nodes []Node) error {
	c, err := split(s.self, nodes)
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

func split(self string, nodes []Node) (Cluster, error) {
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
