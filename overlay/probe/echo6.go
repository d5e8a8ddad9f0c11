package probe

import (
	"crypto/rand"
	"net"
	"net/netip"
	"time"
)

// Of ICMPv6 (RFC 4443); its checksum is the kernel's (RFC 3542, 3.1).
const (
	echoRequest6 = 128
	echoReply6   = 129
)

// answers6 tells whether a host answers one of two echoes by IPv6.
func answers6(to netip.Addr) bool {
	c, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return false
	}
	defer c.Close()
	data := append([]byte{0, 0, 0, 0}, rand.Text()...) // identifier, number, and what tells our answers from others'
	for range 2 {
		if _, err := c.WriteTo(append([]byte{echoRequest6, 0, 0, 0}, data...), &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
			return false
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 256); ; {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return false
		}
		if n >= 4 && b[0] == echoReply6 && string(b[4:n]) == string(data) {
			return true
		}
	}
}
