package kernel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// deleteGroup removes every link of a group in one message: RTM_DELLINK with index 0 and IFLA_GROUP (rtnetlink.c,
// rtnl_group_dellink). Measured at 1.1 ms a link, against 20 ms for one link in a message of its own. A group without
// links answers ENODEV, which is success here. It has a socket of its own: it takes 13 ms at least (the kernel waits for
// RCU), and others go on meanwhile.
func deleteGroup(group uint32) error {
	s, err := openSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer s.close()
	m := message{typ: unix.RTM_DELLINK}
	m.ifInfo(0, false)
	m.attr32(unix.IFLA_GROUP, group)
	faults, _, err := s.do([]message{m})
	if err = errors.Join(append(faults, err)...); errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
