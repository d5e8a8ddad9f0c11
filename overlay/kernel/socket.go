package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// socket asks netlink(7) in batches: many messages in one system call, each answered by itself. The kernel does what
// a message asks while it is sent, one after the other, and the answers lie there when sending returns. So the socket
// stays out of Go's poller, which would wake a thread for each answer. It is safe for concurrent use.
type socket struct {
	// rtnl, unless nil, is held while the kernel does what was sent; see Conn.
	rtnl *sync.Mutex

	mu  sync.Mutex
	fd  int
	seq uint32
	out []byte
	in  []byte
}

func openSocket(protocol int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	// A fault repeats no payload: a whole batch of them fits into the receive buffer.
	err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &socket{fd: fd, in: make([]byte, 8<<10)}, nil // a dump's parts fit into what its reader offers (netlink_dump)
}

// address is what the kernel calls the socket: who asked for a change, in what it tells others of it.
func (s *socket) address() (uint32, error) {
	sa, err := unix.Getsockname(s.fd)
	if at, ok := sa.(*unix.SockaddrNetlink); ok {
		return at.Pid, err
	}
	return 0, err
}

func (s *socket) close() {
	if s != nil {
		_ = unix.Close(s.fd)
	}
}

// do sends messages and gives for each its errno, nil for success, and what the last one was answered besides. The
// kernel goes on behind a message that fails; err means that the socket failed and what was done is not known.
func (s *socket) do(messages []message) (faults []error, answer []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, last := s.begin(messages)
	if err := s.send(); err != nil {
		return nil, nil, err
	}
	faults = make([]error, len(messages))
	faulty := false
	for done := false; !done; {
		err := s.receive(func(h header, body []byte) error {
			i := h.seq - first
			if i >= uint32(len(messages)) {
				return nil // an answer to an earlier batch, which nobody waited for
			}
			if h.typ != unix.NLMSG_ERROR {
				answer = slices.Clone(body)
			} else if faults[i] = errno(body); faults[i] != nil {
				faulty = true
			}
			done = done || h.seq == last
			return nil
		})
		switch {
		case faulty && errors.Is(err, unix.EAGAIN):
			return faults, nil, nil // nfnetlink, out of memory, answers its first message alone
		case err != nil:
			return nil, nil, err
		}
	}
	return faults, answer, nil
}

// begin numbers the messages and tells which is answered last: the one that asks for an acknowledgement, which the
// last one does when no other has. Faults are told of all.
func (s *socket) begin(messages []message) (first, last uint32) {
	first = s.seq + 1
	s.out = s.out[:0]
	for i, m := range messages {
		s.seq++
		flags := m.flags | unix.NLM_F_REQUEST
		if i == len(messages)-1 && last == 0 {
			if !m.asks {
				flags |= unix.NLM_F_ACK
			}
			last = s.seq
		}
		if flags&unix.NLM_F_ACK != 0 {
			last = s.seq
		}
		s.out = native.AppendUint32(s.out, uint32(unix.NLMSG_HDRLEN+len(m.body)))
		s.out = native.AppendUint16(s.out, m.typ)
		s.out = native.AppendUint16(s.out, flags)
		s.out = native.AppendUint32(s.out, s.seq)
		s.out = native.AppendUint32(s.out, 0)
		s.out = append(s.out, m.body...) // is of whole words
	}
	return first, last
}

func (s *socket) send() error {
	if s.rtnl != nil {
		s.rtnl.Lock()
		defer s.rtnl.Unlock()
	}
	_, err := again(func() (int, error) { return unix.Write(s.fd, s.out) })
	return err
}

// again repeats a system call that a signal interrupted: then nothing was begun.
func again(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// dump asks for a list and calls each with every entry's body.
func (s *socket) dump(m message, each func(body []byte)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.flags |= unix.NLM_F_DUMP
	_, seq := s.begin([]message{m})
	if err := s.send(); err != nil {
		return err
	}
	interrupted := false
	for done := false; !done; {
		err := s.receive(func(h header, body []byte) error {
			if h.seq != seq {
				return nil
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				return errno(body)
			}
			each(body)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if interrupted {
		return netlink.ErrDumpInterrupted
	}
	return nil
}

// header is what is used of struct nlmsghdr.
type header struct {
	typ, flags uint16
	seq        uint32
}

// receive reads one datagram, which is there as a rule, and calls each with its messages.
func (s *socket) receive(each func(header, []byte) error) error {
	read := func() (int, error) { return unix.Read(s.fd, s.in) }
	n, err := again(read)
	if errors.Is(err, unix.EAGAIN) {
		// Nothing promises that every family answers while it is asked.
		if _, err := again(func() (int, error) { return unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 100) }); err != nil {
			return fmt.Errorf("wait for the kernel's answer: %w", err)
		}
		n, err = again(read)
	}
	if err != nil {
		return fmt.Errorf("read the kernel's answer: %w", err)
	}
	for b := s.in[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		size := int(native.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return errors.New("read the kernel's answer: it is cut short")
		}
		h := header{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:])}
		if err := each(h, b[unix.NLMSG_HDRLEN:size]); err != nil {
			return err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// errno reads struct nlmsgerr; success is nil. The end of a dump may have none.
func errno(body []byte) error {
	if len(body) < 4 {
		return nil
	}
	if e := int32(native.Uint32(body)); e != 0 {
		return unix.Errno(-e)
	}
	return nil
}

var native = binary.NativeEndian
