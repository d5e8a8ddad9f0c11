package main

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// uplink is the host's address.
var uplink = [4]byte{192, 0, 2, 11}

// listen opens port 80 in the container, before it has an address. The socket ends with the namespace's last user.
func (b *box) listen() error {
	return b.within(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		b.socket = fd
		return errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 80}), unix.Listen(fd, 16))
	})
}

// end lets the container go.
func (b *box) end() {
	if b.socket > 0 {
		_ = unix.Close(b.socket)
	}
	_ = b.file.Close()
}

// knock sends a first SYN from the host, from the sibling and through the host port at once. It gives how many were
// answered within patience, which is less than a SYN's repetition takes, and how many were sent late.
func (w *world) knock(b *box, addr [4]byte, since time.Time, patience time.Duration) (answered, late int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	dial := func(to [4]byte, port int) {
		ok, sent := connects(to, port, patience)
		mu.Lock()
		defer mu.Unlock()
		if ok {
			answered++
		}
		if sent.Sub(since) > time.Millisecond {
			late++
		}
	}
	wg.Go(func() { dial(addr, 80) })
	wg.Go(func() { dial(uplink, b.port) })
	wg.Go(func() { _ = w.sibling.within(func() error { dial(addr, 80); return nil }) }) // not answered when it fails
	wg.Wait()
	return answered, late
}

// connects tells whether a connection comes about, and when its SYN went.
func connects(to [4]byte, port int, patience time.Duration) (ok bool, sent time.Time) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, time.Now()
	}
	defer unix.Close(fd)
	sent = time.Now()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: to}); !errors.Is(err, unix.EINPROGRESS) {
		return err == nil, sent
	}
	for end := sent.Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(time.Until(end).Milliseconds()))
		if errors.Is(err, unix.EINTR) && time.Now().Before(end) {
			continue
		}
		if n != 1 {
			return false, sent
		}
		e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err == nil && e == 0, sent
	}
}

// vanishes waits for a link of the host to be gone.
func vanishes(link string, since time.Time) time.Duration {
	for time.Since(since) < 5*time.Second {
		if _, err := net.InterfaceByName(link); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(since)
}

// foreign makes n tracked connections that are nobody's here.
func foreign(n int) error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	for i := range n {
		src, dst := net.IPv4(172, 16, byte(i>>8), byte(i)), net.IPv4(172, 31, 0, byte(i>>16))
		proto := uint8(unix.IPPROTO_UDP)
		flow := &netlink.ConntrackFlow{
			FamilyType: unix.AF_INET, TimeOut: 600,
			Forward: netlink.IPTuple{SrcIP: src, DstIP: dst, SrcPort: 4000, DstPort: 53, Protocol: proto},
			Reverse: netlink.IPTuple{SrcIP: dst, DstIP: src, SrcPort: 53, DstPort: 4000, Protocol: proto},
		}
		if err := h.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, flow); err != nil {
			return err
		}
	}
	return nil
}
