package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// monitor counts what changes in a namespace's links, addresses, routes, neighbours and firewall, as `ip monitor` and
// `nft monitor` would show it. What the kernel finds out by itself on the underlay does not count.
type monitor struct {
	under uint32 // index of the underlay's device
	over  atomic.Bool
	wg    sync.WaitGroup

	mu    sync.Mutex
	seen  changes
	fault error
}

// changes are those that were seen since a moment.
type changes struct {
	n           int
	firewall    int // of n
	first, last time.Time
}

func (c changes) took() time.Duration { return c.last.Sub(c.first) }

// monitorOf begins to count.
func monitorOf(h *namespace, under uint32) (*monitor, error) {
	m := &monitor{under: under}
	for proto, groups := range map[int][]int{
		unix.NETLINK_ROUTE:     {unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE},
		unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
	} {
		var fd int
		err := h.within(func() (err error) {
			fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
			return err
		})
		if err != nil {
			return nil, errors.Join(err, m.end())
		}
		err = errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
		for _, g := range groups {
			err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
		}
		if err != nil {
			return nil, errors.Join(err, unix.Close(fd), m.end())
		}
		m.wg.Go(func() {
			defer unix.Close(fd)
			m.read(fd, proto)
		})
	}
	return m, nil
}

// end stops counting and tells whether anything was missed.
func (m *monitor) end() error {
	m.over.Store(true)
	m.wg.Wait()
	return m.fault
}

// reset forgets what was counted.
func (m *monitor) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = changes{}
}

func (m *monitor) now() changes {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// settled waits until nothing has changed for so long, and gives what has.
func (m *monitor) settled(quiet time.Duration) changes {
	for since := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c := m.now()
		if time.Since(since) > quiet && time.Since(c.last) > quiet {
			return c
		}
	}
}

func (m *monitor) read(fd, proto int) {
	buf := make([]byte, 64<<10)
	for !m.over.Load() {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			m.mu.Lock()
			m.fault = errors.Join(m.fault, fmt.Errorf("monitor: %w", err))
			m.mu.Unlock()
			return
		}
		m.count(buf[:n], proto, time.Now())
	}
}

func (m *monitor) count(b []byte, proto int, at time.Time) {
	native := binary.NativeEndian
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(b) >= unix.NLMSG_HDRLEN {
		size, typ := int(native.Uint32(b)), native.Uint16(b[4:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		if !m.kernels(typ, b[unix.NLMSG_HDRLEN:size], proto) {
			if m.seen.n == 0 {
				m.seen.first = at
			}
			m.seen.n, m.seen.last = m.seen.n+1, at
			if proto == unix.NETLINK_NETFILTER {
				m.seen.firewall++
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}

// kernels tells whether a message is of something that the kernel found out itself: a neighbour on the underlay.
func (m *monitor) kernels(typ uint16, body []byte, proto int) bool {
	neigh := proto == unix.NETLINK_ROUTE && (typ == unix.RTM_NEWNEIGH || typ == unix.RTM_DELNEIGH)
	return neigh && len(body) >= 8 && binary.NativeEndian.Uint32(body[4:]) == m.under // ndm_ifindex
}
