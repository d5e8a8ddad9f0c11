// Package kernel is the one place where the overlay touches the kernel: it observes what is there and applies the
// steps that package plan decided. It holds netlink sockets and no other state; whoever opens a Conn after a crash
// sees what the last one left.
package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Conn speaks to the kernel of the network namespace that Open was called in. Its methods are safe for concurrent
// use; the kernel itself takes one change of links at a time (RTNL).
type Conn struct {
	root  host.Root
	nl    *netlink.Handle // for what is listed by the few
	lists *socket         // for what is listed by thousands
	route *socket         // for what is changed
	pid   uint32          // route's address, by which Watch knows our own changes
	table tableConn
	// rtnl is who waits for the kernel's lock of that name, which all changes of links and routes take one after the other:
	// a write to a device's settings does not wait for it but tries again and again (rtnl_trylock, restart_syscall).
	rtnl sync.Mutex
	// trusted are the networks that firewalld was told of; LetThrough alone touches it.
	trusted []netip.Prefix
}

// Open makes a Conn. Close it when done.
func Open(root host.Root) (*Conn, error) {
	route, err := openSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	c := &Conn{root: root, route: route}
	route.rtnl = &c.rtnl
	if c.pid, err = route.address(); err == nil {
		c.lists, err = openSocket(unix.NETLINK_ROUTE)
	}
	if err == nil {
		c.lists.in = make([]byte, 32<<10) // the largest part that a dump has (netlink_dump)
		c.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return c, nil
}

// Close ends the Conn.
func (c *Conn) Close() {
	if c.nl != nil {
		c.nl.Close()
	}
	c.lists.close()
	c.route.close()
	c.table.close()
}

// Apply does the steps in order; the error names the first that fails as the command it stands for. Steps that go to
// the kernel in one batch with it have been tried too, whoever of them came later; nothing behind the batch is begun.
// It blocks for the kernel, which is some milliseconds for a link.
func (c *Conn) Apply(ctx context.Context, steps []plan.Step) error {
	a := applier{conn: c, socket: c.route, index: map[string]int{}}
	return a.apply(ctx, steps)
}
