// Package sockstat counts the TCP and UDP sockets of a network namespace by state, as sock_diag(7) tells them: the kernel
// names each socket once, without the text that /proc/net/tcp makes of it.
//
// It enters the namespace for the time of one question and keeps nothing: an open socket would keep the namespace alive
// after its container. After a crash there is nothing to bring back.
package sockstat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TCP states by their number in the kernel (include/net/tcp_states.h), as cAdvisor names them. 0 is none.
var states = [...]string{"", "established", "synsent", "synrecv", "finwait1", "finwait2", "timewait", "close", "closewait", "lastack", "listen", "closing"}

// States gives the names of the TCP states; TCP[i] counts those in state i. The first is none.
func States() []string { return states[:] }

// TCP is how many sockets are in each state.
type TCP [len(states)]uint64

// UDP is how many sockets there are that are not connected, what waits in the queues of all, in bytes, and how many
// datagrams they have dropped.
type UDP struct{ Listen, RxQueued, TxQueued, Dropped uint64 }

// Counts is what one network namespace has.
type Counts struct {
	TCP, TCP6 TCP
	UDP, UDP6 UDP
}

// Read counts the sockets of the network namespace that path names, such as /proc/PID/ns/net. It blocks until the kernel
// has answered or the deadline has passed. An error that is os.ErrNotExist says that the namespace is gone.
func Read(path string, deadline time.Time) (c Counts, err error) {
	ns, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer ns.Close()
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return c, fmt.Errorf("open sock_diag in %s: %w", path, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return c, fmt.Errorf("open sock_diag in %s: %w", path, err)
	}
	for _, q := range []struct {
		family, protocol byte
		visit            func(message)
	}{
		{unix.AF_INET, unix.IPPROTO_TCP, c.TCP.add}, {unix.AF_INET6, unix.IPPROTO_TCP, c.TCP6.add},
		{unix.AF_INET, unix.IPPROTO_UDP, c.UDP.add}, {unix.AF_INET6, unix.IPPROTO_UDP, c.UDP6.add},
	} {
		answers, err := conn.Execute(request(q.family, q.protocol))
		if errors.Is(err, unix.ENOENT) {
			continue // a kernel without this protocol
		}
		if err != nil {
			return c, fmt.Errorf("ask sock_diag in %s: %w", path, err)
		}
		for _, a := range answers {
			if len(a.Data) >= sizeofMsg {
				q.visit(a.Data)
			}
		}
	}
	return c, nil
}

// From linux/inet_diag.h and linux/sock_diag.h.
const (
	sizeofRequest = 56
	sizeofMsg     = 72
	skMemInfo     = 7 // INET_DIAG_SKMEMINFO
	skDrops       = 8 // SK_MEMINFO_DROPS
)

func request(family, protocol byte) netlink.Message {
	b := make([]byte, sizeofRequest)
	b[0], b[1], b[2] = family, protocol, 1<<(skMemInfo-1)
	binary.NativeEndian.PutUint32(b[4:], 1<<32-1) // all states
	return netlink.Message{Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump}, Data: b}
}

// message is a struct inet_diag_msg with its attributes.
type message []byte

func (m message) state() int    { return int(m[1]) }
func (m message) queue() uint64 { return uint64(binary.NativeEndian.Uint32(m[56:])) }
func (m message) sends() uint64 { return uint64(binary.NativeEndian.Uint32(m[60:])) }
func (m message) drops() uint64 {
	attrs, err := netlink.UnmarshalAttributes(m[sizeofMsg:])
	if err != nil {
		return 0
	}
	for _, a := range attrs {
		if a.Type == skMemInfo && len(a.Data) >= 4*(skDrops+1) {
			return uint64(binary.NativeEndian.Uint32(a.Data[4*skDrops:]))
		}
	}
	return 0
}

func (t *TCP) add(m message) {
	if s := m.state(); s < len(t) {
		t[s]++
	}
}

func (u *UDP) add(m message) {
	const unconnected = 7 // TCP_CLOSE
	if m.state() == unconnected {
		u.Listen++
	}
	u.RxQueued += m.queue()
	u.TxQueued += m.sends()
	u.Dropped += m.drops()
}

// List gives the numbers in the order of the fields.
func (u *UDP) List() []uint64 { return []uint64{u.Listen, u.RxQueued, u.TxQueued, u.Dropped} }
