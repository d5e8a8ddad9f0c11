//go:build kernel

package overlay_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// hears tells whether a datagram comes to l.
func hears(l *net.UDPConn, patience time.Duration) bool {
	_ = l.SetReadDeadline(time.Now().Add(patience))
	_, _, err := l.ReadFromUDP(make([]byte, 100))
	return err == nil
}

func listenUDP(t *testing.T, ns *hosttest.NetNamespace, port int) (l *net.UDPConn) {
	t.Helper()
	inside(t, ns, func() (err error) {
		l, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// tun makes a device without Ethernet headers, as WireGuard's are; what is written to it comes from there.
func (s *site) tun() *os.File {
	s.t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		s.t.Skip("no /dev/net/tun:", err)
	}
	f := os.NewFile(uintptr(fd), "tun")
	s.t.Cleanup(func() { _ = f.Close() })
	request, err := unix.NewIfreq("tun0")
	if err != nil {
		s.t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		s.t.Fatal(err)
	}
	s.sh("ip link set tun0 up; sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tun0.rp_filter=0")
	return f
}

func datagram(from, to netip.AddrPort) []byte {
	p := make([]byte, 28)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], 28)
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], 8)
	return p
}

func TestNobodyPassesForAContainerByADeviceWithoutMACs(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	n := blue()
	n.CIDR6 = netip.Prefix{}
	s := newSite(t, n)
	b := s.box("b", "blue")
	atBox, atHost := listenUDP(t, b.NetNamespace, 7777), listenUDP(t, nil, 7778)
	dev := s.tun()
	send := func(from string, to netip.AddrPort) {
		t.Helper()
		if _, err := dev.Write(datagram(netip.MustParseAddrPort(from), to)); err != nil {
			t.Fatal(err)
		}
	}
	send("198.51.100.7:1", netip.MustParseAddrPort("192.0.2.11:7778"))
	if !hears(atHost, 5*time.Second) {
		t.Fatal("nothing comes by the device at all")
	}
	send("10.42.99.9:1", netip.AddrPortFrom(b.Addr, 7777))
	if hears(atBox, 300*time.Millisecond) {
		t.Error("a datagram from outside with an address of the overlay reached a container")
	}
}

func TestAContainerCannotSpeakVXLANToAPeer(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	s, host := onSegment(t)
	c := overlay.DefaultConfig()
	c.Store = "static"
	c.Networks = []overlay.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}, {Name: "green", CIDR: netip.MustParsePrefix("10.43.0.0/16"), VNI: 43}}
	c.Peers = []overlay.Peer{
		{Name: "web1", Address: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("10.43.1.0/24")}},
		{Name: "web2", Address: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24"), netip.MustParsePrefix("10.43.2.0/24")}},
	}
	peer := listenUDP(t, host("192.0.2.12"), 4789)
	s.start(c)
	b := s.box("b", "green")
	send := func(vni uint32) {
		t.Helper()
		inside(t, b.NetNamespace, func() error {
			d, err := net.Dial("udp4", "192.0.2.12:4789")
			if err != nil {
				return err
			}
			defer d.Close()
			packet := make([]byte, 50)
			packet[0] = 8
			binary.BigEndian.PutUint32(packet[4:], vni<<8)
			_, err = d.Write(packet)
			return err
		})
	}
	// The host's own probes come there too; what a container sends has no frame inside.
	came := func(patience time.Duration) bool {
		b := make([]byte, 100)
		for _ = peer.SetReadDeadline(time.Now().Add(patience)); ; {
			n, err := peer.Read(b)
			if err != nil {
				return false
			}
			if n == 50 && [42]byte(b[8:50]) == [42]byte{} {
				return true
			}
		}
	}
	send(99)
	if !came(5 * time.Second) {
		t.Fatal("a container does not reach the peer's underlay at all")
	}
	for _, vni := range []uint32{42, 43} {
		send(vni)
		if came(300 * time.Millisecond) {
			t.Errorf("a container's own packet of VNI %d came to the peer as this host's", vni)
		}
	}
}
