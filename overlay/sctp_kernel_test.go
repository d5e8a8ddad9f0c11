//go:build kernel

package overlay_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// Where the kernel has SCTP, two of its sockets speak; where not, the two ends write its packets themselves (RFC 9260).
func TestAnSCTPAssociationBeginsThroughAPortOfTheHost(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	b, err := s.attach("a", "blue", plan.Port{HostPort: 3868, ContainerPort: 3869, Protocol: plan.SCTP})
	if err != nil {
		t.Fatal(err)
	}
	if listener := s.sctp(b.NetNamespace); listener >= 0 {
		s.associate(listener, b.Addr.As4())
		return
	}
	server, client := s.raw(b.NetNamespace), s.raw(s.outside)
	const client16, host16, container16, tag = 40000, 3868, 3869, 7
	send(t, client, &net.IPAddr{IP: net.IPv4(192, 0, 2, 11)}, initChunk(1, client16, host16, 0, tag))
	got, from := receive(t, server)
	if src, dst := binary.BigEndian.Uint16(got), binary.BigEndian.Uint16(got[2:]); src != client16 || dst != container16 {
		t.Fatalf("the container's INIT is from port %d to %d", src, dst)
	}
	if !checksumHolds(got) {
		t.Error("the INIT's checksum does not hold after its port was changed")
	}
	send(t, server, from, initChunk(2, container16, client16, tag, 9))
	got, from = receive(t, client)
	if src := binary.BigEndian.Uint16(got); src != host16 || from.String() != "192.0.2.11" {
		t.Errorf("the answer comes from %s port %d", from, src)
	}
	if !checksumHolds(got) {
		t.Error("the answer's checksum does not hold after its port was changed")
	}
}

// sctp opens a socket of the kernel's own SCTP in a namespace, or gives -1.
func (s *site) sctp(ns *hosttest.NetNamespace) (fd int) {
	s.t.Helper()
	inside(s.t, ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
			fd, err = -1, nil
		}
		return err
	})
	if fd >= 0 {
		s.t.Cleanup(func() { _ = unix.Close(fd) })
	}
	return fd
}

// associate has a host outside say something to the container, which listens at addr, and hear it again.
func (s *site) associate(listener int, addr [4]byte) {
	s.t.Helper()
	t := s.t
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Port: 3869, Addr: addr}), unix.Listen(listener, 1)); err != nil {
		t.Fatal(err)
	}
	go func() {
		fd, _, err := unix.Accept(listener)
		if err != nil {
			return // the client fails, and says so
		}
		defer unix.Close(fd)
		b := make([]byte, 100)
		if n, err := unix.Read(fd, b); err == nil {
			_, _ = unix.Write(fd, b[:n])
		}
	}()
	client := s.sctp(s.outside)
	patience := unix.NsecToTimeval(int64(hosttest.Bound(10 * time.Second)))
	err := errors.Join(unix.SetsockoptTimeval(client, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience), unix.SetsockoptTimeval(client, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience))
	if err == nil {
		err = unix.Connect(client, &unix.SockaddrInet4{Port: 3868, Addr: [4]byte{192, 0, 2, 11}})
	}
	if err == nil {
		_, err = unix.Write(client, []byte("hello"))
	}
	b := make([]byte, 100)
	n := 0
	if err == nil {
		n, err = unix.Read(client, b)
	}
	if err != nil || string(b[:n]) != "hello" {
		t.Fatalf("heard %q: %v", b[:max(n, 0)], err)
	}
}

// raw opens a socket for SCTP's packets in a namespace.
func (s *site) raw(ns *hosttest.NetNamespace) (c net.PacketConn) {
	s.t.Helper()
	inside(s.t, ns, func() (err error) { c, err = net.ListenPacket("ip4:132", "0.0.0.0"); return err })
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// initChunk is a packet with INIT (1) or INIT ACK (2).
func initChunk(kind byte, src, dst uint16, tag, own uint32) []byte {
	p := make([]byte, 12, 32)
	binary.BigEndian.PutUint16(p, src)
	binary.BigEndian.PutUint16(p[2:], dst)
	binary.BigEndian.PutUint32(p[4:], tag)
	p = append(p, kind, 0, 0, 20)
	p = binary.BigEndian.AppendUint32(p, own)
	p = binary.BigEndian.AppendUint32(p, 65536) // window
	p = append(p, 0, 1, 0, 1)                   // streams out and in
	p = binary.BigEndian.AppendUint32(p, 1)
	binary.LittleEndian.PutUint32(p[8:], crc(p))
	return p
}

func crc(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func checksumHolds(p []byte) bool {
	q := append([]byte(nil), p...)
	said := binary.LittleEndian.Uint32(q[8:])
	binary.LittleEndian.PutUint32(q[8:], 0)
	return crc(q) == said
}

func send(t *testing.T, c net.PacketConn, to net.Addr, p []byte) {
	t.Helper()
	if _, err := c.WriteTo(p, to); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.PacketConn) ([]byte, net.Addr) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	n, from, err := c.ReadFrom(buf)
	if err != nil || n < 32 {
		t.Fatalf("%d bytes of SCTP: %v", n, err)
	}
	return buf[:n], from
}
