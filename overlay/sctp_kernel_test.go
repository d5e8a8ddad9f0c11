//go:build kernel

package overlay_test

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// The kernels that we meet have no SCTP of their own: the two ends write its packets themselves (RFC 9260).
func TestAnSCTPAssociationBeginsThroughAPortOfTheHost(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s := newSite(t, blue())
	b, err := s.attach("a", "blue", plan.Port{HostPort: 3868, ContainerPort: 3869, Protocol: plan.SCTP})
	if err != nil {
		t.Fatal(err)
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
