package probe

import (
	"encoding/binary"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// The sizes of IPv4's and ICMP's headers, and where an echo has what (RFC 791, RFC 792).
const (
	ipLen   = 20
	icmpLen = 8
	dataAt  = ipLen + icmpLen

	echoReply   = 0
	echoRequest = 8
	hopLimit    = 255 // what is forwarded arrives with less: package plan, rule PassProbe
	protoICMP   = 1
)

// mark is what an echo's data begins with, so that an answer is known for one to us.
type mark [8]byte

// echo makes the IP packet of a probe into b, which is long enough.
func echo(b []byte, s Shot, m mark) []byte {
	size := max(s.Size, dataAt+len(m)+4)
	b = b[:size]
	clear(b)
	b[0], b[8], b[9] = 0x45, hopLimit, protoICMP
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	binary.BigEndian.PutUint16(b[6:], 0x4000) // don't fragment
	copy(b[12:], s.Hop.From.AsSlice())        // none: the kernel's choice
	copy(b[16:], s.Hop.To.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b[:ipLen]))
	b[ipLen] = echoRequest
	binary.BigEndian.PutUint16(b[ipLen+4:], plan.ProbeID)
	binary.BigEndian.PutUint16(b[ipLen+6:], uint16(s.Number))
	copy(b[dataAt:], m[:])
	binary.BigEndian.PutUint32(b[dataAt+len(m):], s.Number)
	binary.BigEndian.PutUint16(b[ipLen+2:], checksum(b[ipLen:dataAt+len(m)+4])) // the rest is zeros
	return b
}

// answer reads the number of the probe that an IP packet with an echo reply answers.
func answer(b []byte, m mark) (number uint32, ok bool) {
	if len(b) < ipLen {
		return 0, false
	}
	at := int(b[0]&15)*4 + icmpLen
	if len(b) < at+len(m)+4 || b[at-icmpLen] != echoReply || mark(b[at:at+len(m)]) != m {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[at+len(m):]), true
}

// request tells whether an IP packet is a probe's question.
func request(b []byte) bool {
	return len(b) >= dataAt && b[0] == 0x45 && b[8] == hopLimit && b[ipLen] == echoRequest
}

// checksum is the Internet's (RFC 1071); len(b) is even.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
