package overlay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/overlay/store"
)

// forStore is the network as a shared store knows it.
func (n Network) forStore() (store.Network, error) {
	spec, err := json.Marshal(n)
	if err != nil {
		return store.Network{}, fmt.Errorf("encode network %s: %w", n.Name, err)
	}
	four, six := n.blockLengths()
	fixed4, fixed6 := n.fixedRanges()
	return store.Network{
		Name: n.Name, CIDR: n.CIDR, CIDR6: n.CIDR6, VNI: n.VNI, Block: four, Block6: six, Fixed: fixed4, Fixed6: fixed6, Spec: spec,
	}, nil
}

// blockLengths are the lengths of the blocks that hosts lease: what the network says, else such that there are enough
// for many hosts and enough addresses in each.
func (n Network) blockLengths() (four, six int) {
	four = cmp.Or(n.Block, max(n.CIDR.Bits(), min(28, max(24, n.CIDR.Bits()+4))))
	if n.CIDR6.IsValid() {
		six = cmp.Or(n.Block6, max(n.CIDR6.Bits(), min(120, max(64, n.CIDR6.Bits()+8))))
	}
	return four, six
}

// fromStore reads networks of a shared store. Of what does not fit the others, or is none of ours, it tells why.
func fromStore(list []store.Network) (networks []Network, faults map[string]error) {
	faults = map[string]error{}
	for _, there := range list {
		var n Network
		err := json.Unmarshal(there.Spec, &n)
		if err == nil && (n.Name != there.Name || n.CIDR != there.CIDR || n.CIDR6 != there.CIDR6 || n.VNI != there.VNI) {
			err = errors.New("its record contradicts itself")
		}
		if err == nil {
			n.Allow = slices.DeleteFunc(n.Allow, func(name string) bool {
				return !slices.ContainsFunc(list, func(o store.Network) bool { return o.Name == name })
			})
			lone := n
			lone.Allow = nil // may be of a later one
			err = lone.beside(networks)
		}
		if err != nil {
			faults[there.Name] = err
			continue
		}
		networks = append(networks, n)
	}
	return networks, faults
}

// share takes over the networks of a shared store. The session is locked.
func (s *session) share(c store.Cluster) error {
	networks, faults := fromStore(c.Networks)
	for _, n := range s.listed {
		there := func(m Network) bool { return m.Name == n.Name }
		if !slices.ContainsFunc(networks, there) && len(s.table.on(n.Name)) > 0 {
			networks = append(networks, n) // removed while nobody could know of our containers: they stay
		}
	}
	before := s.faults
	s.listed, s.faults = networks, map[string]string{}
	for _, n := range s.o.cfg.Networks {
		i := slices.IndexFunc(networks, func(m Network) bool { return m.Name == n.Name })
		if i < 0 && faults[n.Name] == nil {
			faults[n.Name] = errors.New("it is not in the store, for it clashes with a network that is there, or was removed")
		}
	}
	for _, n := range networks {
		if s.inUse[n.Name] || len(s.table.on(n.Name)) > 0 {
			continue // they work
		}
		taken, err := s.routedElsewhere(n)
		if err != nil {
			return err
		}
		if taken != nil {
			faults[n.Name] = taken
		}
	}
	for name, err := range faults {
		s.faults[name] = err.Error()
		if before[name] != err.Error() {
			s.o.deps.Log.Error("network is not served", "network", name, "err", err)
		}
	}
	return nil
}

// present tells a shared store who this host is and what it wants.
func (s *session) present() error {
	shared, ok := s.o.store.(store.Shared)
	if !ok {
		return nil
	}
	boot, err := s.o.deps.Root.BootID()
	if err != nil {
		return err
	}
	underlay, err := s.kernel.FindUnderlay(s.o.deps.NodeAddr)
	if err != nil {
		return fmt.Errorf("find underlay: %w; the store %s needs this host's address: set node.address", err, shared.Name())
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		machine = []byte("unknown") // for people only
	}
	shared.Present(store.Identity{
		Name: s.o.deps.NodeName, Machine: strings.TrimSpace(string(machine)), Boot: boot, Addr: underlay.Addr, Agent: s.o.deps.Version,
	})
	s.needFromStore()
	return nil
}

// needFromStore tells a shared store which networks, and how many blocks of them, this host needs.
func (s *session) needFromStore() {
	shared, ok := s.o.store.(store.Shared)
	if !ok {
		return
	}
	s.wanting.Lock() // the store is told in the order in which it was found out
	defer s.wanting.Unlock()
	w := store.Wants{Blocks: map[string]int{}, Fixed: s.wantFixed()}
	for _, n := range s.o.cfg.Networks {
		if sn, err := n.forStore(); err == nil { // what was read from a file can be written
			w.Networks = append(w.Networks, sn)
		}
	}
	s.mu.Lock()
	networks := s.networks
	s.mu.Unlock()
	for _, n := range networks {
		w.Blocks[n.Name] = 0
		for _, b := range n.Blocks {
			if b.Addr().Is4() && !b.IsSingleIP() {
				w.Blocks[n.Name]++
			}
		}
		if s.table.low(n.Name) {
			w.Blocks[n.Name]++
		}
		if len(s.table.on(n.Name)) > 0 {
			w.Uses = append(w.Uses, n.Name)
		}
	}
	shared.Want(w)
}

// errNotShared is returned for what only a shared store can do.
var errNotShared = errors.New("hosts share nothing by this store; set overlay.store to etcd")

// ForgetNode gives the blocks of a dead node back to all. It fails for one that is alive.
func (o *Overlay) ForgetNode(ctx context.Context, name string) error {
	shared, ok := o.store.(store.Shared)
	if !ok {
		return fmt.Errorf("forget node %s: %w", name, errNotShared)
	}
	if err := shared.ForgetNode(ctx, name); err != nil {
		return fmt.Errorf("forget node %s: %w", name, err)
	}
	return nil
}

// Leave gives this host's blocks back; others see it at once. It fails while containers are attached. The host joins
// again when the agent starts.
func (o *Overlay) Leave(ctx context.Context) error {
	shared, ok := o.store.(store.Shared)
	if !ok {
		return fmt.Errorf("leave: %w", errNotShared)
	}
	s, err := o.current(ctx)
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	s.changing.Lock() // no attach meanwhile, and none afterwards
	on := s.table.all()
	s.left = len(on) == 0
	s.changing.Unlock()
	if len(on) > 0 {
		return fmt.Errorf("leave: containers are attached: %s", strings.Join(ownersOf(on), ", "))
	}
	if err := shared.Leave(ctx); err != nil {
		s.changing.Lock()
		s.left = false
		s.changing.Unlock()
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// changeShared changes the networks of a shared store and waits until this host has followed, or a few seconds.
func (o *Overlay) changeShared(ctx context.Context, change func(context.Context, *session, store.Shared) error, done func(*session) bool) error {
	s, err := o.current(ctx)
	if err != nil {
		return err
	}
	if err := change(ctx, s, o.store.(store.Shared)); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if s.until(bounded, func() bool { return done(s) }) != nil {
		return cmp.Or(ctx.Err(), errors.New("the store has taken it, but this host has not heard of it yet"))
	}
	return nil
}

func (o *Overlay) createShared(ctx context.Context, n Network) error {
	sn, err := n.forStore()
	if err != nil {
		return err
	}
	return o.changeShared(ctx, func(ctx context.Context, s *session, shared store.Shared) error {
		taken, err := s.routedElsewhere(n)
		if err = errors.Join(taken, err); err != nil {
			return err
		}
		return shared.CreateNetwork(ctx, sn, func(there []store.Network) error {
			networks, _ := fromStore(there)
			return n.beside(networks)
		})
	}, func(s *session) bool {
		return networkIndex(s.networks, n.Name) >= 0 && len(within(n.cidrs(), s.cluster.Self.Blocks)) > 0 || s.cluster.Problem != ""
	})
}

func (o *Overlay) removeShared(ctx context.Context, name string) error {
	return o.changeShared(ctx, func(ctx context.Context, s *session, shared store.Shared) error {
		s.mu.Lock()
		known, names := slices.ContainsFunc(s.listed, func(n Network) bool { return n.Name == name }), s.names()
		s.mu.Unlock()
		switch on := s.table.on(name); {
		case slices.ContainsFunc(o.cfg.Networks, func(n Network) bool { return n.Name == name }):
			return errListed
		case !known:
			return &UnknownNetworkError{Name: name, Known: names}
		case len(on) > 0:
			return fmt.Errorf("containers are on it: %s", strings.Join(ownersOf(on), ", "))
		}
		return shared.RemoveNetwork(ctx, name)
	}, func(s *session) bool { return networkIndex(s.networks, name) < 0 })
}
