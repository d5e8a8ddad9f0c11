package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/cni-plugin/crash"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// applier does steps in one namespace. It knows the index of each device it has met.
type applier struct {
	conn   *Conn
	socket *socket
	ns     *plan.Namespace // nil: the host's
	visit  *Visit          // of the namespace that is entered next, or nil
	index  map[string]int
	far    map[string]int // in the container's namespace
	queue  []queued
}

// queued is a step that is one message, and waits for those that go with it.
type queued struct {
	step plan.Step
	message
}

// batchSize bounds the messages of one system call; a fault's answer takes a kilobyte of the socket's 200.
const batchSize = 64

func (a *applier) apply(ctx context.Context, steps []plan.Step) error {
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s, context.Cause(ctx))
		}
		if err := a.step(ctx, s); err != nil {
			return err
		}
		if crash.Numbered || len(a.queue) >= batchSize {
			if _, err := a.flush(); err != nil {
				return err
			}
		}
	}
	_, err := a.flush()
	return err
}

// step queues what is one message, and does anything else behind all that is queued.
func (a *applier) step(ctx context.Context, s plan.Step) error {
	m, ok, err := a.message(s)
	if err == nil && ok {
		a.queue = append(a.queue, queued{s, m})
		return nil
	}
	if await, ok := s.(plan.AwaitUp); ok {
		return a.awaitUp(ctx, await) // asks in the same batch
	}
	if _, flushed := a.flush(); flushed != nil {
		return flushed
	}
	if err == nil {
		err = a.do(ctx, s)
	} else {
		err = forgive(s, err)
	}
	if err != nil {
		if in, ok := s.(plan.Inside); ok {
			return fmt.Errorf("in %s: %w", in.NS.Path, err)
		}
		return fmt.Errorf("%s: %w", s, err)
	}
	crash.Step(s)
	return nil
}

// message gives the one message that a step is, or false.
func (a *applier) message(s plan.Step) (m message, ok bool, err error) {
	const replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	on := func(dev string, make func(index int) message) (message, bool, error) {
		i, err := a.linkIndex(dev)
		if err != nil {
			return message{}, false, err
		}
		return make(i), true, nil
	}
	switch s := s.(type) {
	case plan.SetLink:
		return setLink(a.device(s.Name), s), true, nil
	case plan.SetAlias:
		return setAlias(a.device(s.Name), s.Alias), true, nil
	case plan.RetireLink:
		return setLink(a.device(s.Name), plan.SetLink{Group: plan.RetiredGroup}), true, nil
	case plan.SetLinkSysctl:
		if key, value := devconf[s.Key], s.Value; s.Family == "ipv4" && key > 0 && value == "1" {
			return setDevconf(a.device(s.Dev), key, 1), true, nil
		}
	case plan.AddAddr:
		return on(s.Dev, func(i int) message {
			return addrMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, i, s.Prefix)
		})
	case plan.DeleteAddr:
		return on(s.Dev, func(i int) message { return addrMessage(unix.RTM_DELADDR, 0, i, s.Prefix) })
	case plan.ReplaceRoute:
		return a.routeMessage(unix.RTM_NEWROUTE, replace, s.Route)
	case plan.DeleteRoute:
		return a.routeMessage(unix.RTM_DELROUTE, 0, s.Route)
	case plan.ReplaceNeigh:
		return on(s.Dev, func(i int) message { return neighMessage(unix.RTM_NEWNEIGH, replace, i, s.Neigh) })
	case plan.DeleteNeigh:
		return on(s.Dev, func(i int) message { return neighMessage(unix.RTM_DELNEIGH, 0, i, s.Neigh) })
	case plan.ReplaceFDB:
		return on(s.Dev, func(i int) message { return fdbMessage(unix.RTM_NEWNEIGH, replace, i, s.FDB) })
	case plan.DeleteFDB:
		return on(s.Dev, func(i int) message { return fdbMessage(unix.RTM_DELNEIGH, 0, i, s.FDB) })
	}
	return message{}, false, nil
}

func (a *applier) routeMessage(typ, flags uint16, r plan.Route) (message, bool, error) {
	index := 0
	if !r.Unreachable {
		var err error
		if index, err = a.linkIndex(r.Dev); err != nil {
			return message{}, false, err
		}
	}
	return routeMessage(typ, flags, index, r), true, nil
}

// do does a step that is not one message.
func (a *applier) do(ctx context.Context, s plan.Step) error {
	switch s := s.(type) {
	case plan.AddVeth:
		return a.addVeth(s)
	case plan.AddLink:
		return a.addVXLAN(s)
	case plan.DeleteRetired:
		return deleteGroup(plan.RetiredGroup)
	case plan.RenameLink:
		return a.rename(s)
	case plan.DeleteLink:
		return gone(a.onLink(s.Name, a.conn.nl.LinkDel))
	case plan.SetSysctl:
		return a.conn.setSysctl(s.Key, s.Value)
	case plan.ReplaceTable:
		return replaceTable(s.Table)
	case plan.Admit:
		return a.conn.table.admit(s.Elements)
	case plan.Dismiss:
		return gone(a.conn.table.dismiss(s.Elements))
	case plan.ForgetFlows:
		return forgetFlows(s.Flows)
	case plan.SetLinkSysctl:
		return a.conn.setLinkSysctl(s)
	case plan.Inside:
		return a.inside(ctx, s)
	}
	return fmt.Errorf("unknown step %T", s)
}

// flush sends what is queued, and gives what the last message was answered besides. The error names the first step that
// failed.
func (a *applier) flush() (answer []byte, err error) {
	all := a.queue
	a.queue = nil
	for queue, again := all, false; len(queue) > 0; again = true {
		var faults []error
		if faults, answer, err = a.socket.do(messages(queue)); err != nil {
			return nil, fmt.Errorf("%s: %w", queue[0].step, err)
		}
		for i, fault := range faults {
			faults[i] = forgive(queue[i].step, fault)
		}
		bad := slices.IndexFunc(faults, func(err error) bool { return err != nil })
		if bad < 0 {
			break
		}
		turned, err := a.turnedOn(queue[bad].step, faults[bad])
		if !turned || again && bad == 0 { // the same once more
			return nil, fmt.Errorf("%s: %w", queue[bad].step, err)
		}
		queue = undone(queue[bad:], faults[bad:])
	}
	for _, q := range all {
		if !q.asks {
			crash.Step(q.step)
		}
	}
	return answer, nil
}

func messages(queue []queued) []message {
	out := make([]message, len(queue))
	for i, q := range queue {
		out[i] = q.message
	}
	return out
}

// undone gives what is to be sent again once the first can be done: all but what fails when it is there already. What
// went well without the first may not have been what it is with it.
func undone(queue []queued, faults []error) (out []queued) {
	for i, q := range queue {
		if _, adds := q.step.(plan.AddAddr); !adds || faults[i] != nil {
			out = append(out, q)
		}
	}
	return out
}

// turnedOn turns IPv6 on where it is off for the device: a container that is on an IPv6 network is to have its address.
// False when that is not why s failed; the error is why it did, or why IPv6 stays off.
func (a *applier) turnedOn(s plan.Step, cause error) (bool, error) {
	add, ok := s.(plan.AddAddr)
	if !ok || a.ns == nil || !add.Prefix.Addr().Is6() || !errors.Is(cause, unix.EACCES) {
		return false, cause
	}
	if err := a.conn.enableIPv6(*a.ns, add.Dev); err != nil {
		return false, err
	}
	return true, cause
}

// forgive makes the deletion of what is not there a success.
func forgive(s plan.Step, err error) error {
	switch s.(type) {
	case plan.RetireLink, plan.DeleteAddr, plan.DeleteRoute, plan.DeleteNeigh, plan.DeleteFDB:
		return gone(err)
	}
	return err
}

func gone(err error) error {
	for _, e := range []syscall.Errno{unix.ENODEV, unix.ESRCH, unix.ENOENT, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// inside runs steps with a netlink socket of the container's namespace.
func (a *applier) inside(ctx context.Context, s plan.Inside) error {
	v := a.visit
	if v == nil || v.ns.FD != s.NS.FD {
		var err error
		if v, err = a.conn.Visit(s.NS); err != nil {
			return err
		}
		defer v.Close()
	}
	inner := applier{conn: a.conn, socket: v.socket, ns: &s.NS, index: map[string]int{"lo": 1}} // lo is the first of every namespace
	for name, i := range a.far {
		inner.index[name] = i
	}
	return inner.apply(ctx, s.Steps)
}

// addVeth makes the link and asks in the same call for what it has become, so that nobody needs to ask again on either
// side.
func (a *applier) addVeth(s plan.AddVeth) error {
	faults, answer, err := a.socket.do([]message{addVeth(s), getLink(s.Name)})
	if err != nil {
		return err
	}
	if errors.Is(faults[0], unix.EEXIST) {
		return fmt.Errorf("%s is already in %s, or %s on the host: %w", s.Peer, s.NS.Path, s.Name, faults[0])
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	l := parseLink(answer)
	a.index[s.Name] = l.index
	if l.peer > 0 {
		a.far = map[string]int{s.Peer: l.peer}
	}
	return nil
}

// rename takes the link down first: before Linux 6.2 one that is up keeps its name.
func (a *applier) rename(s plan.RenameLink) error {
	i, err := a.linkIndex(s.Name)
	if err != nil {
		return err
	}
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: s.Name, Index: i}}
	if err := a.conn.nl.LinkSetDown(l); err != nil {
		return err
	}
	if err := a.conn.nl.LinkSetName(l, s.To); err != nil {
		return err
	}
	delete(a.index, s.Name)
	a.index[s.To] = i
	return nil
}

func (a *applier) addVXLAN(s plan.AddLink) error {
	v := &netlink.Vxlan{
		LinkAttrs: attrs(s.Link),
		VxlanId:   int(s.VXLAN.VNI),
		Port:      int(s.VXLAN.Port),
		SrcAddr:   s.VXLAN.Local.AsSlice(),
		Learning:  false,
	}
	err := a.conn.nl.LinkAdd(v)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EADDRINUSE) {
		return a.foreign(s, err)
	}
	a.index[s.Name] = v.Index
	return err
}

// foreign names the device that has our VNI, our port or our name.
func (a *applier) foreign(s plan.AddLink, cause error) error {
	links, err := a.conn.nl.LinkList()
	if err != nil {
		return cause
	}
	for _, l := range links {
		v, ok := l.(*netlink.Vxlan)
		if l.Attrs().Name == s.Name || ok && v.VxlanId == int(s.VXLAN.VNI) && v.Port == int(s.VXLAN.Port) {
			return fmt.Errorf("device %s, which is not ours, already has that name or VNI %d on port %d; remove it or give the network another vni or port: %w",
				l.Attrs().Name, s.VXLAN.VNI, s.VXLAN.Port, cause)
		}
	}
	return cause
}

func attrs(l plan.Link) netlink.LinkAttrs {
	at := netlink.NewLinkAttrs()
	at.Name, at.MTU, at.HardwareAddr, at.Group = l.Name, l.MTU, l.MAC[:], l.Group
	if l.Up {
		at.Flags = net.FlagUp
	}
	return at
}

// awaitUp asks until the link is operational, the first time in one batch with what is queued. Asking itself makes newer
// kernels (6.8) look at the carrier at once; on older ones the link watch runs within a millisecond or so.
func (a *applier) awaitUp(ctx context.Context, s plan.AwaitUp) error {
	deadline := time.Now().Add(2 * time.Second)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		a.queue = append(a.queue, queued{s, getLink(s.Name)})
		answer, err := a.flush()
		if err != nil {
			return err
		}
		state := netlink.LinkOperState(parseLink(answer).state)
		if state == netlink.OperUp {
			crash.Step(s)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: link is %s after 2 s", s, state)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s: %w", s, context.Cause(ctx))
		}
	}
}

func (a *applier) onLink(name string, do func(netlink.Link) error) error {
	i, err := a.linkIndex(name)
	if err != nil {
		return err
	}
	return do(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name, Index: i}})
}

// device names one that need not have been met.
func (a *applier) device(name string) device { return device{a.index[name], name} }

func (a *applier) linkIndex(name string) (int, error) {
	if i := a.index[name]; i > 0 {
		return i, nil
	}
	l, err := a.socket.link(name)
	if err != nil {
		return 0, err
	}
	a.index[name] = l.index
	return l.index, nil
}

// link asks for one by its name; ENODEV when it is not there.
func (s *socket) link(name string) (linkState, error) {
	faults, answer, err := s.do([]message{getLink(name)})
	if err == nil {
		err = faults[0]
	}
	return parseLink(answer), err
}
