package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Visit is a netlink socket in a container's namespace: one for all that an attach asks and changes there, because
// making it moves a thread there and back.
type Visit struct {
	conn   *Conn
	socket *socket
	ns     plan.Namespace
}

// Visit opens one. Close it when done.
func (c *Conn) Visit(ns plan.Namespace) (*Visit, error) {
	s, err := openSocketIn(ns)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Path, err)
	}
	s.rtnl = &c.rtnl
	return &Visit{c, s, ns}, nil
}

// openSocketIn goes into the namespace for one system call: a socket stays where it was made.
func openSocketIn(ns plan.Namespace) (*socket, error) {
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer unix.Close(own)
	if err := unix.Setns(ns.FD, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	s, err := openSocket(unix.NETLINK_ROUTE)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		if s != nil {
			s.close()
		}
		return nil, errors.Join(err, fmt.Errorf("come back: %w", back)) // not unlocked: the thread ends with the goroutine
	}
	runtime.UnlockOSThread()
	return s, err
}

// Close ends the Visit.
func (v *Visit) Close() { v.socket.close() }

// Namespace is the one that is visited.
func (v *Visit) Namespace() plan.Namespace { return v.ns }

// Apply is as Conn.Apply; steps inside the namespace use this Visit.
func (v *Visit) Apply(ctx context.Context, steps []plan.Step) error {
	a := applier{conn: v.conn, socket: v.conn.route, visit: v, index: map[string]int{}}
	return a.apply(ctx, steps)
}

// HasDefaultRoute tells whether the namespace has a default route of a family in its main table.
func (v *Visit) HasDefaultRoute(v6 bool) (bool, error) {
	found, err := retryDump(func() (found []bool, err error) {
		err = v.socket.dump(getRoutes(v6), func(body []byte) {
			if len(body) >= rtLen && body[1] == 0 && body[4] == unix.RT_TABLE_MAIN && body[7] == unix.RTN_UNICAST { // rtm_dst_len, rtm_table, rtm_type
				found = append(found, true)
			}
		})
		return found, err
	})
	if err != nil {
		return false, fmt.Errorf("look for a default route in %s: %w", v.ns.Path, err)
	}
	return len(found) > 0, nil
}
