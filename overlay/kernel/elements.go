package kernel

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/google/nftables"
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

// tableConn changes elements of the table through one socket that stays open.
type tableConn struct {
	mu     sync.Mutex
	socket *socket
	pid    uint32 // the socket's address, by which Watch knows our own transactions
}

// open gives the socket, which is made when it is first needed.
func (c *tableConn) open() (*socket, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket != nil {
		return c.socket, nil
	}
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	pid, err := s.address()
	if err == nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20) // a transaction is one message to the socket
	}
	if err != nil {
		s.close()
		return nil, err
	}
	c.socket, c.pid = s, pid
	return s, nil
}

func (c *tableConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket != nil {
		c.socket.close()
		c.socket = nil
	}
}

// isOurs tells whether a transaction came through this socket.
func (c *tableConn) isOurs(pid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.socket != nil && c.pid == pid
}

// change does one transaction, all or nothing, which adds or removes elements of each set.
func (c *tableConn) change(typ, flags uint16, e map[string][]nftables.SetElement) error {
	s, err := c.open()
	if err != nil || len(e) == 0 {
		return err
	}
	messages := []message{batchMessage(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, name := range slices.Sorted(maps.Keys(e)) {
		for some := range slices.Chunk(e[name], elementsAtOnce) {
			messages = append(messages, elementsMessage(typ, flags, name, some))
		}
	}
	messages[len(messages)-1].flags |= unix.NLM_F_ACK // the end of a batch is not acknowledged by every kernel
	faults, _, err := s.do(append(messages, batchMessage(unix.NFNL_MSG_BATCH_END)))
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(faults, func(err error) bool { return err != nil }); i >= 0 {
		return faults[i]
	}
	return nil
}

func (c *tableConn) admit(e plan.Elements) error {
	return c.change(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, encodeElements(e))
}

// dismiss removes elements. One that is not there would fail the whole transaction: then each goes in one of its own.
func (c *tableConn) dismiss(e plan.Elements) error {
	all := encodeElements(e)
	err := c.change(unix.NFT_MSG_DELSETELEM, 0, all)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	for name, list := range all {
		for _, one := range list {
			if err := c.change(unix.NFT_MSG_DELSETELEM, 0, map[string][]nftables.SetElement{name: {one}}); gone(err) != nil {
				return err
			}
		}
	}
	return nil
}

// batchMessage begins or ends a transaction (nfnetlink_rcv_batch); res_id says whose.
func batchMessage(typ uint16) message {
	return message{typ: typ, body: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
}

// elementsMessage speaks of elements of one set.
func elementsMessage(typ, flags uint16, set string, list []nftables.SetElement) message {
	m := message{typ: unix.NFNL_SUBSYS_NFTABLES<<8 | typ, flags: flags}
	m.body = append(m.body, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	value := func(typ uint16, v []byte) {
		if len(v) > 0 {
			m.nest(typ|unix.NLA_F_NESTED, func() { m.attr(unix.NFTA_DATA_VALUE, v) })
		}
	}
	m.attrText(unix.NFTA_SET_ELEM_LIST_TABLE, plan.TableName)
	m.attrText(unix.NFTA_SET_ELEM_LIST_SET, set)
	m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, func() {
		for _, e := range list {
			m.nest(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, func() {
				value(unix.NFTA_SET_ELEM_KEY, e.Key)
				value(nftables.NFTA_SET_ELEM_KEY_END, e.KeyEnd)
				value(unix.NFTA_SET_ELEM_DATA, e.Val)
			})
		}
	})
	return m
}
