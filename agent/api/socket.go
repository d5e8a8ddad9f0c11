package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned by Run when another agent answers on the socket.
var ErrInUse = errors.New("another fairlead agent answers")

// listen opens the socket, 0660 and of the group when it exists. The lock beside it decides between two agents, also
// when they start at the same moment; its file stays, because removing it would open the race again.
func (s *Server) listen() (_ net.Listener, release func(), err error) {
	if err := checkLength(s.socket); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(s.socket), 0o755); err != nil {
		return nil, nil, fmt.Errorf("open operator API: %w", err)
	}
	lock, err := takeLock(s.socket)
	if err != nil {
		return nil, nil, fmt.Errorf("open operator API: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open operator API: %w", err), lock.Close())
		}
	}()
	if err := removeStale(s.socket); err != nil {
		return nil, nil, err
	}
	// Between this and chmod others may connect: the check of their credentials holds from the start.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(os.Chmod(s.socket, 0o660), s.giveToGroup()); err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, func() { _ = lock.Close() }, nil // serve has closed l, which removed the socket
}

// checkLength explains what the kernel would call an invalid argument; see unix(7).
func checkLength(socket string) error {
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(socket) > most {
		return fmt.Errorf("socket path %s has %d bytes, the kernel takes %d: choose a shorter run_dir", socket, len(socket), most)
	}
	return nil
}

// takeLock locks the file beside socket and writes our pid into it. The kernel gives the lock back when we die.
func takeLock(socket string) (*os.File, error) {
	f, err := os.OpenFile(socket+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		b := make([]byte, 20)
		n, _ := f.ReadAt(b, 0) // empty between the other's lock and its word: then the pid is unknown
		return nil, inUse(socket, strings.TrimSpace(string(b[:n])))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func inUse(socket, pid string) error {
	if pid == "" {
		pid = "unknown"
	}
	return fmt.Errorf("%w on %s (pid %s)", ErrInUse, socket, pid)
}

// removeStale removes the socket of a dead agent. We hold the lock, so a living one means that somebody removed its
// lock file; it is left alone all the same.
func removeStale(socket string) error {
	st, err := os.Lstat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is not a socket; move it away", socket)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err == nil {
		defer conn.Close()
		p, _ := readPeer(conn) // a peer that cannot be read has pid 0, and answers nevertheless
		return inUse(socket, strconv.Itoa(int(p.pid)))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) { // EAGAIN is a full backlog: alive
		return fmt.Errorf("see whether an agent answers: %w", err)
	}
	return os.Remove(socket)
}

// giveToGroup lets members of the group connect. A group that this host does not have is no fault.
func (s *Server) giveToGroup() error {
	gid, ok, err := s.gid()
	if err != nil || !ok {
		return err
	}
	return os.Chown(s.socket, -1, gid)
}

// gid looks the group up each time it is needed: it may be made while the agent runs.
func (s *Server) gid() (gid int, ok bool, err error) {
	if s.group == "" {
		return 0, false, nil
	}
	g, err := user.LookupGroup(s.group)
	if unknown := (user.UnknownGroupError("")); errors.As(err, &unknown) || errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("look up group %s: %w", s.group, err)
	}
	gid, err = strconv.Atoi(g.Gid)
	return gid, err == nil, err
}
