package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// PortHolder names the process of the host that has a port, or gives "". It tries to bind: two system calls, where
// asking for all sockets costs as many as there are.
func (c *Conn) PortHolder(p plan.Port) (string, error) {
	err := tryBind(p)
	if err == nil || !errors.Is(err, unix.EADDRINUSE) {
		return "", nil // what cannot be bound at all (an address that the host does not have yet) is nobody's
	}
	sockets, err := c.Listeners()
	if err != nil {
		return "", err
	}
	for _, s := range sockets {
		if s.Clashes(p) {
			return s.Process, nil
		}
	}
	return "a process that is not seen from here", nil
}

func tryBind(p plan.Port) error {
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(p.HostPort)})
	switch {
	case p.HostIP.Is4():
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(p.HostPort), Addr: p.HostIP.As4()}
	case p.HostIP.IsValid():
		sa = &unix.SockaddrInet6{Port: int(p.HostPort), Addr: p.HostIP.As16()}
	}
	typ := unix.SOCK_STREAM
	if p.Protocol == plan.UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, int(p.Protocol))
	if errors.Is(err, unix.EAFNOSUPPORT) && !p.HostIP.IsValid() { // a host without IPv6
		sa = &unix.SockaddrInet4{Port: int(p.HostPort)}
		fd, err = unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, int(p.Protocol))
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if typ == unix.SOCK_STREAM { // connections that linger are no listeners
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if domain == unix.AF_INET6 && p.HostIP.IsValid() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, sa)
}

// Listener is a socket of the host that takes what comes to a port.
type Listener struct {
	plan.Port
	Process string // as "process 812 (nginx)"
}

// Listeners lists the host's listening TCP sockets and its unconnected UDP ones, with who has them. It reads every
// process's descriptors: for people, not for the way of an attach.
func (c *Conn) Listeners() ([]Listener, error) {
	var out []Listener
	inodes := map[uint32][]int{}
	add := func(proto plan.Transport, s *netlink.Socket) {
		host, _ := netip.AddrFromSlice(s.ID.Source)
		if host.Is4In6() {
			host = host.Unmap()
		}
		if host.Is6() && host.IsUnspecified() {
			host = netip.Addr{} // mostly for both families
		}
		inodes[s.INode] = append(inodes[s.INode], len(out))
		out = append(out, Listener{Port: plan.Port{HostIP: host, HostPort: s.ID.SourcePort, Protocol: proto}, Process: fmt.Sprintf("a process (socket %d)", s.INode)})
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		tcp, err := c.nl.SocketDiagTCP(family)
		if err != nil {
			return nil, fmt.Errorf("list TCP sockets: %w", err)
		}
		for _, s := range tcp {
			if s.State == netlink.TCP_LISTEN {
				add(plan.TCP, s)
			}
		}
		udp, err := c.nl.SocketDiagUDP(family)
		if err != nil {
			return nil, fmt.Errorf("list UDP sockets: %w", err)
		}
		for _, s := range udp {
			if s.ID.DestinationPort == 0 {
				add(plan.UDP, s)
			}
		}
	}
	c.nameHolders(inodes, out)
	return out, nil
}

// nameHolders finds the processes that have the sockets, by inode.
func (c *Conn) nameHolders(inodes map[uint32][]int, out []Listener) {
	fds, err := filepath.Glob(filepath.Join(c.root.Proc, "[0-9]*/fd/*"))
	if err != nil {
		return
	}
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		number, ok := strings.CutPrefix(to, "socket:[")
		if err != nil || !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32)
		if err != nil {
			continue
		}
		for _, i := range inodes[uint32(inode)] {
			dir := filepath.Dir(filepath.Dir(fd))
			name, _ := os.ReadFile(filepath.Join(dir, "comm"))
			out[i].Process = fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(name)))
		}
	}
}
