package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is the process that connected, as the kernel recorded it at connect(2): a pid that is used again since, or
// groups that it changed since, do not matter. The zero value is nobody.
type peer struct {
	known    bool
	pid      int32
	uid, gid uint32
	groups   []uint32
}

type peerKey struct{}

// withPeer notes who connected. When the kernel does not say, the connection is nobody's and will be refused.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	p, err := readPeer(unixConn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(ctx context.Context) peer {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p
}

// mayUse is nil for root, the agent's own user and members of the group.
func (s *Server) mayUse(p peer) error {
	gid, hasGroup, err := s.gid()
	if err != nil {
		s.log.Warn("group of the operator API could not be looked up", "err", err)
	}
	return permit(p, uint32(os.Geteuid()), s.group, uint32(gid), hasGroup)
}

func permit(p peer, self uint32, group string, gid uint32, hasGroup bool) error {
	switch {
	case !p.known:
		return errors.New("the kernel does not say who you are")
	case p.uid == 0, p.uid == self:
		return nil
	case hasGroup && (p.gid == gid || slices.Contains(p.groups, gid)):
		return nil
	case group == "":
		return fmt.Errorf("user %d (pid %d) may not use the agent: only root may", p.uid, p.pid)
	case !hasGroup:
		return fmt.Errorf("user %d (pid %d) may not use the agent: only root and members of group %s may, and this host has no such group", p.uid, p.pid, group)
	}
	return fmt.Errorf("user %d (pid %d) may not use the agent: only root and members of group %s may", p.uid, p.pid, group)
}

// readPeer asks the kernel for SO_PEERCRED and SO_PEERGROUPS (unix(7); the latter since Linux 4.13).
func readPeer(conn *net.UnixConn) (p peer, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	if cerr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		p = peer{known: true, pid: cred.Pid, uid: cred.Uid, gid: cred.Gid}
		p.groups, err = peerGroups(fd)
	}); cerr != nil {
		return peer{}, cerr
	}
	return p, err
}

// peerGroups gives the supplementary groups. x/sys has no call that returns an option of this length.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size/4) > len(groups): // size says how much it needs
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, fmt.Errorf("read groups of peer: %w", errno)
		default:
			return groups[:size/4], nil
		}
	}
}
