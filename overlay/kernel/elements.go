package kernel

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// elementsAtOnce bounds a message: a netlink attribute has at most 64 KiB.
const elementsAtOnce = 500

func addElements(nft *nftables.Conn, set *nftables.Set, list []nftables.SetElement) error {
	for some := range slices.Chunk(list, elementsAtOnce) {
		if err := nft.SetAddElements(set, some); err != nil {
			return err
		}
	}
	return nil
}

// tableConn changes elements of the table through one socket that stays open: opening one costs as much as the change.
type tableConn struct {
	mu   sync.Mutex // the library gathers one transaction at a time
	nft  *nftables.Conn
	sets map[string]*nftables.Set
	// pid is the socket's address, by which Watch knows our own transactions.
	pid uint32
}

// open is called with mu held.
func (c *tableConn) open() error {
	if c.nft != nil {
		return nil
	}
	var pid uint32
	nft, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(conn *netlink.Conn) (err error) {
		pid, err = portID(conn)
		return err
	}))
	if err != nil {
		return err
	}
	c.nft, c.pid, c.sets = nft, pid, map[string]*nftables.Set{}
	for _, s := range ourSets() {
		c.sets[s.Name] = s
	}
	return nil
}

func (c *tableConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nft != nil {
		_ = c.nft.CloseLasting()
		c.nft = nil
	}
}

// isOurs tells whether a transaction came through this socket.
func (c *tableConn) isOurs(pid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nft != nil && c.pid == pid
}

// change does one transaction. A socket that met an error is not used again: answers may still be waiting in it.
func (c *tableConn) change(e map[string][]nftables.SetElement, do func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.open(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if err := do(c.nft, c.sets[name], e[name]); err != nil {
			return err
		}
	}
	err := c.nft.Flush()
	if err != nil {
		_ = c.nft.CloseLasting()
		c.nft = nil
	}
	return err
}

func (c *tableConn) admit(e plan.Elements) error {
	return c.change(encodeElements(e), addElements)
}

// dismiss removes elements. One that is not there would fail the whole transaction: then each goes in one of its own.
func (c *tableConn) dismiss(e plan.Elements) error {
	remove := func(nft *nftables.Conn, set *nftables.Set, list []nftables.SetElement) error {
		for some := range slices.Chunk(list, elementsAtOnce) {
			if err := nft.SetDeleteElements(set, some); err != nil {
				return err
			}
		}
		return nil
	}
	all := encodeElements(e)
	err := c.change(all, remove)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	for name, list := range all {
		for _, one := range list {
			if err := c.change(map[string][]nftables.SetElement{name: {one}}, remove); gone(err) != nil {
				return err
			}
		}
	}
	return nil
}

// portID gives a netlink socket's own address.
func portID(conn *netlink.Conn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var sa unix.Sockaddr
	var failed error
	if err := raw.Control(func(fd uintptr) { sa, failed = unix.Getsockname(int(fd)) }); err != nil {
		return 0, err
	}
	if nl, ok := sa.(*unix.SockaddrNetlink); ok && failed == nil {
		return nl.Pid, nil
	}
	return 0, failed
}
