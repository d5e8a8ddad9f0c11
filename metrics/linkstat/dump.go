package linkstat

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Dial opens a route netlink socket in the network namespace of the calling thread; it stops waiting for the kernel at
// the deadline. The caller closes it.
func Dial(deadline time.Time) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err == nil {
		err = c.SetDeadline(deadline)
	}
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return c, nil
}

// Dump calls visit for each link of the socket's network namespace. It blocks until the kernel has answered or the
// socket's deadline has passed.
func Dump(c *netlink.Conn, visit func(index int, counters Counters)) error {
	request := make([]byte, sizeofStatsMsg)
	binary.NativeEndian.PutUint32(request[8:], linkStats64Mask)
	messages, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETSTATS, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return fmt.Errorf("dump link statistics: %w", err)
	}
	for _, m := range messages {
		if index, counters, ok := parseStats(m.Data); ok {
			visit(index, counters)
		}
	}
	return nil
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
