//go:build kernel

package etcd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// ether is an Ethernet frame with an IPv4 packet in it.
func ether(to, from plan.MAC, packet []byte) []byte {
	return append(append(append(to[:], from[:]...), 8, 0), packet...)
}

// udp is an IPv4 packet with a datagram in it.
func udp(from, to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	return append(p, payload...)
}

// vxlan is the payload of a datagram that has a frame in it (RFC 7348).
func vxlan(vni uint32, frame []byte) []byte {
	p := make([]byte, 8, 8+len(frame))
	p[0] = 8
	binary.BigEndian.PutUint32(p[4:], vni<<8)
	return append(p, frame...)
}

// within calls f on a thread in a network namespace of the host: its own, or that of a container.
func (s *story) within(n *Node, box string, f func() error) {
	s.t.Helper()
	path := fmt.Sprintf("/proc/%d/ns/net", n.PID())
	if box != "" {
		path = fmt.Sprintf("/proc/%d/root/run/netns/%s", n.PID(), box)
	}
	file, err := os.Open(path)
	s.must(err)
	defer file.Close()
	s.must((&hosttest.NetNamespace{File: file}).Run(f))
}

// raw is a packet socket on a host's link or in a container: on the host it sees what comes by the wire before any
// firewall, in a container what is delivered.
func (s *story) raw(n *Node, box string) (fd int) {
	s.t.Helper()
	s.within(n, box, func() (err error) {
		all := uint16(unix.ETH_P_ALL)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all>>8|all<<8)); err != nil {
			return err
		}
		link, err := unix.NewIfreq("eth0")
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, link)
		}
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all>>8 | all<<8, Ifindex: int(link.Uint32())})
	})
	s.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// listen is a UDP socket of a host, which hears what its firewall lets in.
func (s *story) listen(n *Node, port int) (fd int) {
	s.t.Helper()
	s.within(n, "", func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	})
	s.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// counts tells how often each of words came to a socket, until one has come or patience ends.
func counts(fd int, until string, words []string, patience time.Duration) map[string]int {
	seen, b := map[string]int{}, make([]byte, 2000)
	for deadline := time.Now().Add(patience); seen[until] == 0 && time.Now().Before(deadline); {
		wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(wait, int(time.Until(deadline).Milliseconds())+1); n == 0 || err != nil {
			continue // at its end, or for a signal
		}
		n, from, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if l, ok := from.(*unix.SockaddrLinklayer); err != nil || ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue // what goes out, an ICMP error that quotes what came, say
		}
		for _, w := range words {
			if bytes.HasSuffix(b[:n], []byte(w)) {
				seen[w]++
			}
		}
	}
	return seen
}

// mac is of the host's link to the others.
func (s *story) mac(n *Node) (m plan.MAC) {
	s.t.Helper()
	out, err := n.Sh(s.t.Context(), "ip -br link show eth0")
	s.must(err)
	s.must(m.UnmarshalText([]byte(strings.Fields(out)[2])))
	return m
}
