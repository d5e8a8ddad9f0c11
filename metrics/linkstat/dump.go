package linkstat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a route netlink socket: what is written is a request, each Read gives what the kernel answers at a time. It is
// made anew for each scrape, so it has no more of netlink than a dump needs, and leaves no garbage.
type Conn struct{ fd int }

// Dial opens a route netlink socket in the network namespace of the calling thread; it stops waiting for the kernel at
// the deadline. The caller closes it.
func Dial(deadline time.Time) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", os.NewSyscallError("socket", err))
	}
	left := unix.NsecToTimeval(int64(max(time.Until(deadline), time.Microsecond))) // 0 would be for ever
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open route netlink: %w", os.NewSyscallError("setsockopt", err))
	}
	return &Conn{fd}, nil
}

// Write sends a request to the kernel.
func (c *Conn) Write(b []byte) (int, error) {
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	return len(b), nil
}

// Read gives the kernel's next messages. It is an error if b is too small for them.
func (c *Conn) Read(b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, b, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, os.NewSyscallError("recvfrom", err)
		case n > len(b):
			return 0, io.ErrShortBuffer
		}
		return n, nil
	}
}

// Close ends the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// BufferSize is what Dump needs to work in: the kernel answers in pieces of up to 32 KiB.
const BufferSize = 32 << 10

// Dump asks the kernel, of which c is a route netlink socket, for the counters of all links of the socket's network
// namespace, and calls visit for each. It blocks until the kernel has answered or the socket's deadline has passed.
func Dump(c io.ReadWriter, buf []byte, visit func(index int, counters Counters)) error {
	const sequence = 1 // the socket's only request
	request := make([]byte, unix.SizeofNlMsghdr+sizeofStatsMsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETSTATS)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(request[8:], sequence)
	binary.NativeEndian.PutUint32(request[unix.SizeofNlMsghdr+8:], linkStats64Mask)
	_, err := c.Write(request)
	for done := false; err == nil && !done; {
		var n int
		if n, err = c.Read(buf); err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			done, err = messages(buf[:n], sequence, visit)
		}
	}
	if err != nil {
		return fmt.Errorf("dump link statistics: %w", err)
	}
	return nil
}

// messages reads what came at a time, and tells whether that was the last of it.
func messages(b []byte, sequence uint32, visit func(index int, counters Counters)) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size, kind, of := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if size < unix.SizeofNlMsghdr || int64(size) > int64(len(b)) {
			return false, errors.New("a message is longer than what came")
		}
		data := b[unix.SizeofNlMsghdr:size]
		b = b[min(len(b), int(size+3)&^3):]
		switch {
		case of != sequence: // nobody asked for it
		case kind == unix.NLMSG_DONE, kind == unix.NLMSG_ERROR:
			if len(data) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(data)); errno != 0 {
					return true, unix.Errno(errno)
				}
			}
			return true, nil
		case kind == unix.RTM_NEWSTATS:
			if index, counters, ok := parseStats(data); ok {
				visit(index, counters)
			}
		}
	}
	return false, nil
}

// From linux/if_link.h.
const (
	sizeofStatsMsg  = 12 // struct if_stats_msg: family, padding, ifindex at 4, filter mask at 8
	attrLink64      = 1  // IFLA_STATS_LINK_64, a struct rtnl_link_stats64
	linkStats64Mask = 1 << (attrLink64 - 1)
	typeMask        = 0x3fff // NLA_TYPE_MASK of linux/netlink.h: the two upper bits are flags
)

// parseStats reads one RTM_NEWSTATS message. A message without link counters is not ok.
func parseStats(data []byte) (index int, c Counters, ok bool) {
	if len(data) < sizeofStatsMsg {
		return 0, c, false
	}
	index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	for attrs := data[sizeofStatsMsg:]; len(attrs) >= unix.SizeofNlAttr; {
		size, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if size < unix.SizeofNlAttr || size > len(attrs) {
			return 0, c, false
		}
		if body := attrs[unix.SizeofNlAttr:size]; kind&typeMask == attrLink64 && len(body) >= 8*8 {
			at := func(i int) uint64 { return binary.NativeEndian.Uint64(body[8*i:]) }
			return index, Counters{
				RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3),
				RxErrors: at(4), TxErrors: at(5), RxDropped: at(6), TxDropped: at(7),
			}, true
		}
		attrs = attrs[min(len(attrs), (size+3)&^3):]
	}
	return 0, c, false
}
