package overlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func (s *session) attach(ctx context.Context, r Request) (plan.Attachment, error) {
	defer s.keys.lock(r.Key)()
	network, err := s.network(r.Network)
	if err != nil {
		return plan.Attachment{}, err
	}
	nsid, err := NamespaceID(r.NS)
	if err != nil {
		return plan.Attachment{}, err
	}
	if nsid == s.ownNS {
		return plan.Attachment{}, &InvalidRequestError{fmt.Sprintf("network namespace %s is the agent's own, not a container's", r.NS.Path)}
	}
	if a, ok := s.table.get(r.Key); ok {
		if a.NSID == nsid && r.asks(a) {
			return a, s.learn(&a, r.NS.Path, r.Runtime)
		}
		if err := s.end(ctx, a, "attached anew"); err != nil { // the container was started again without a DEL
			return plan.Attachment{}, err
		}
	}
	visit, err := s.kernel.Visit(r.NS)
	if err != nil {
		return plan.Attachment{}, err
	}
	defer visit.Close()
	// A default route that is there is somebody else's, of a plugin before us: it stays.
	taken4, err := visit.HasDefaultRoute(false)
	taken6 := true
	if err == nil && network.CIDR6.IsValid() {
		taken6, err = visit.HasDefaultRoute(true)
	}
	if err != nil {
		return plan.Attachment{}, err
	}
	done, err := s.claimFixed(ctx, network, r)
	if err != nil {
		return plan.Attachment{}, err
	}
	defer done()
	a, err := s.take(ctx, plan.Attachment{
		Key: r.Key, Runtime: r.Runtime, Network: r.Network, Addr: r.Addr, Addr6: r.Addr6, MAC: r.MAC, Ports: r.Ports,
		Node: network.Node, Node6: network.Node6, MTU: network.MTU,
		Default: !taken4, Default6: !taken6, Reach: network.CIDR, Reach6: network.CIDR6,
		NetNS: r.NS.Path, NSID: nsid,
	})
	if err != nil {
		return plan.Attachment{}, err
	}
	touched, err := s.make(ctx, a, visit)
	switch {
	case err != nil && !touched:
		s.table.freePorts(a)
		s.table.freeAddrs(a)
		return plan.Attachment{}, err
	case err != nil:
		// Undone even when the caller has gone away.
		return plan.Attachment{}, errors.Join(err, s.end(context.WithoutCancel(ctx), a, undone))
	}
	s.o.attached.Inc()
	s.o.deps.Log.Info("container attached", "container", a.Owner, "network", a.Network, "addr", a.Addr, "ifname", a.IfName)
	return a, nil
}

// asks tells whether a is what r asks for, apart from the namespace.
func (r Request) asks(a plan.Attachment) bool {
	return r.Network == a.Network && (!r.Addr.IsValid() || r.Addr == a.Addr) && (!r.Addr6.IsValid() || r.Addr6 == a.Addr6) &&
		r.MAC == a.MAC && slices.Equal(r.Ports, a.Ports)
}

// take reserves what an attachment needs. What was just detached is free only once its batch has gone: who asks for
// that, or for the same key, waits for it.
func (s *session) take(ctx context.Context, a plan.Attachment) (plan.Attachment, error) {
	leaving := s.leaving.all()
	if slices.ContainsFunc(leaving, func(l plan.Attachment) bool { return l.Key == a.Key }) {
		if err := s.flushRetired(ctx); err != nil {
			return a, err
		}
	}
	got, err := s.table.take(a)
	if err != nil && len(leaving) > 0 {
		if err := s.flushRetired(ctx); err != nil {
			return a, err
		}
		got, err = s.table.take(a)
	}
	if err != nil {
		return a, err
	}
	// The kernel is asked last: its answer is by a trial, which another ADD for the same port must not meet.
	if err := s.portsFree(got); err != nil {
		s.table.freePorts(got)
		s.table.freeAddrs(got)
		return a, err
	}
	return got, nil
}

// portsFree asks the kernel whether a process of the host has one of a's ports.
func (s *session) portsFree(a plan.Attachment) error {
	for _, p := range a.Ports {
		holder, err := s.kernel.PortHolder(p)
		if err != nil {
			return err
		}
		if holder != "" {
			return &PortInUseError{p, holder}
		}
	}
	return nil
}

// errLeft is returned between `net leave` and the agent's next start.
var errLeft = errors.New("this host has left the cluster, or is about to; it joins again when the agent starts")

// make journals and applies one attachment. It tells whether the kernel was touched.
func (s *session) make(ctx context.Context, a plan.Attachment, visit *kernel.Visit) (touched bool, err error) {
	s.changing.RLock()
	defer s.changing.RUnlock()
	if s.left {
		return false, errLeft
	}
	// It may have been removed, and even made anew with other addresses, since its addresses were asked for.
	if n, err := s.network(a.Network); err != nil || n.CIDR != a.Reach || n.CIDR6 != a.Reach6 {
		return false, cmp.Or(err, fmt.Errorf("network %s was changed meanwhile", a.Network))
	} else if isFenced(a, n) {
		return false, fmt.Errorf("network %s: this host lost %v meanwhile", a.Network, a.Addrs())
	}
	if err := s.journal.Append(attachRecord(a)); err != nil {
		return false, err
	}
	steps := plan.Attach(a, visit.Namespace())
	err = visit.Apply(ctx, steps)
	if errors.Is(err, unix.EEXIST) {
		// A link of the same name may still wait for its deletion: that one is flushed, once.
		flushed := append([]plan.Step{plan.DeleteRetired{}}, steps...)
		err = visit.Apply(ctx, flushed)
	}
	if err != nil {
		return true, err
	}
	s.table.put(a)
	s.changed()
	return true, nil
}

// learn notes that the namespace of a goes by another path now, or by one at all after an adoption, and whose a is when
// that was not known. Its key is locked, and changing is not held.
func (s *session) learn(a *plan.Attachment, path, runtime string) error {
	if a.Runtime != "" {
		runtime = a.Runtime
	}
	if a.NetNS == path && a.Runtime == runtime {
		return nil
	}
	s.changing.RLock()
	defer s.changing.RUnlock()
	a.NetNS, a.Runtime = path, runtime
	if err := s.journal.Append(attachRecord(*a)); err != nil {
		return err
	}
	s.table.put(*a)
	return nil
}

func (s *session) detach(ctx context.Context, key plan.Key, nsid, why string) error {
	defer s.keys.lock(key)()
	a, ok := s.table.get(key)
	if !ok || nsid != "" && a.NSID != nsid {
		return nil
	}
	return s.end(ctx, a, why)
}

// undone is why an attachment ends that was never complete.
const undone = "undone"

// end takes an attachment away. Its key is locked.
func (s *session) end(ctx context.Context, a plan.Attachment, why string) error {
	s.changing.RLock()
	defer s.changing.RUnlock()
	// A full disk must not keep a container from being taken off: what the kernel has decides at the next start.
	unwritten := s.journal.Append(detachRecord(a.Key))
	s.table.leave(a) // first: what goes from the kernel now is not to be put right
	fault := s.kernel.Apply(ctx, plan.Detach(a))
	switch {
	case fault != nil && why != undone:
		s.table.put(a)
		return fault
	case fault != nil: // it was never whole, and nobody will ask again: what is left of it goes by repair
		poke(s.repair)
	}
	if unwritten != nil {
		s.o.deps.Log.Error("detach could not be journalled; the next start learns it from the kernel", "container", a.Owner, "err", unwritten)
	}
	s.table.freePorts(a)
	s.leaving.add(a)
	s.changed()
	poke(s.retired)
	if why != undone {
		s.o.detached.Inc()
	}
	s.o.deps.Log.Info("container detached", "container", a.Owner, "network", a.Network, "addr", a.Addr, "ifname", a.IfName, "why", why)
	return fault
}

// ownNamespace is the agent's.
func ownNamespace() (string, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return NamespaceID(plan.Namespace{FD: int(f.Fd()), Path: f.Name()})
}

// NamespaceID gives "dev:inode" of an open network namespace.
func NamespaceID(ns plan.Namespace) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns.FD, &st); err != nil {
		return "", fmt.Errorf("stat network namespace %s: %w", ns.Path, err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

func boardEntry(a plan.Attachment, index int) container.Attachment {
	out := container.Attachment{
		Owner: a.Owner, Network: a.Network, IfName: a.IfName, Path: a.NetNS,
		Link: container.Link{Index: index, Name: a.Link()},
	}
	out.Addrs = append(out.Addrs, a.Addrs()...)
	dev, ino, _ := strings.Cut(a.NSID, ":")
	d, err1 := strconv.ParseUint(dev, 10, 64)
	i, err2 := strconv.ParseUint(ino, 10, 64)
	if err1 == nil && err2 == nil {
		out.NetNS = host.NetNS{Dev: d, Ino: i}
	}
	return out
}

// keyLocks lets one call at a time work on a key.
type keyLocks struct {
	mu   sync.Mutex
	held map[plan.Key]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int
}

// lock blocks until key is free and gives the function that frees it again.
func (k *keyLocks) lock(key plan.Key) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[plan.Key]*keyLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
}
