package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Conn sends probes as frames and hears their answers. One goroutine uses it; Wake may be called by others.
type Conn struct {
	out   int      // AF_PACKET; receives nothing
	in    *os.File // raw ICMP: what the filter lets through
	raw   syscall.RawConn
	mark  mark           // tells our answers from another Conn's
	index map[string]int // of devices
	names map[int]string
	frame []byte
	data  []byte
	oob   []byte
	woken atomic.Bool
}

// Dial opens a Conn in the network namespace that it is called in.
func Dial() (_ *Conn, err error) {
	c := &Conn{out: -1, index: map[string]int{}, names: map[int]string{}, frame: make([]byte, 1<<16), data: make([]byte, 256), oob: make([]byte, 128)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open sockets for probes: %w", errors.Join(err, c.Close()))
		}
	}()
	if _, err := rand.Read(c.mark[:]); err != nil {
		return nil, err
	}
	if c.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, err
	}
	in, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, err
	}
	c.in = os.NewFile(uintptr(in), "probes")
	_ = unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1) // Linux before 5.1 has it not: then the time of reading
	if err := unix.SetsockoptInt(in, unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
		return nil, err
	}
	// What goes out plainly is not to be cut to pieces, nor held back by what the kernel believes (ip(7)).
	if err := unix.SetsockoptInt(in, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
		return nil, err
	}
	if err := onlyEchoes(in); err != nil {
		return nil, err
	}
	c.raw, err = c.in.SyscallConn()
	return c, err
}

// Close ends the Conn.
func (c *Conn) Close() (err error) {
	if c.in != nil {
		err = c.in.Close()
	}
	if c.out >= 0 {
		err = errors.Join(err, unix.Close(c.out))
	}
	return err
}

// onlyEchoes lets a raw socket take echoes of probes, peers' requests too, and nothing else; the packet begins with its
// IP header.
func onlyEchoes(fd int) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}, // X = the header's length
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 0},  // type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: echoReply, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: echoRequest, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 4}, // identifier
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: plan.ProbeID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 256}, // so much of it
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// Send sends one probe. It does not block. A hop without a device is for the kernel's own routes, with its own address.
func (c *Conn) Send(s Shot) error {
	if s.Hop.Dev == "" {
		packet, to := echo(c.frame, s, c.mark), unix.SockaddrInet4{Addr: s.Hop.To.As4()}
		var err error
		return errors.Join(c.raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), packet[ipLen:], 0, &to) }), err)
	}
	index, err := c.device(s.Hop.Dev)
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: index, Halen: 6}
	copy(to.Addr[:], s.Hop.MAC[:])
	err = unix.Sendto(c.out, echo(c.frame, s, c.mark), 0, to)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		delete(c.index, s.Hop.Dev) // made anew, perhaps: the next one finds it
	}
	return err
}

func (c *Conn) device(name string) (int, error) {
	if index, ok := c.index[name]; ok {
		return index, nil
	}
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	c.index[name], c.names[dev.Index] = dev.Index, name
	return dev.Index, nil
}

// Heard is an echo that has come: an answer to one of ours, or a peer's request, which the kernel answers.
type Heard struct {
	Number uint32 // of the probe that is answered; 0: a request
	At     time.Time
	From   netip.Addr
	Dev    string // that it came by, if probes have been sent there; of requests
}

// Hear calls heard with each echo that has come. It waits until the deadline for a first one, or for Wake.
func (c *Conn) Hear(deadline time.Time, heard func(Heard)) error {
	if err := c.in.SetReadDeadline(deadline); err != nil {
		return err
	}
	var fault error
	all := func(fd uintptr) (some bool) { some, fault = c.read(int(fd), heard); return some || fault != nil }
	if !c.woken.Swap(false) {
		err := c.raw.Read(all)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.Join(err, fault)
		}
	}
	// A deadline that has passed keeps Read from looking at all.
	err := c.raw.Control(func(fd uintptr) { all(fd) })
	return errors.Join(err, fault)
}

// read takes all that is there, and tells whether there was anything.
func (c *Conn) read(fd int, heard func(Heard)) (some bool, err error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, c.data, c.oob, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return some, nil
		case err != nil:
			return some, err
		}
		some = true
		if h, ok := c.echo(c.data[:n], c.oob[:oobn]); ok {
			heard(h)
		}
	}
}

// Wake ends a Hear that waits, or the next one.
func (c *Conn) Wake() {
	c.woken.Store(true)
	_ = c.in.SetReadDeadline(time.Unix(1, 0))
}

// echo reads what has come.
func (c *Conn) echo(packet, oob []byte) (h Heard, ok bool) {
	if h.Number, ok = answer(packet, c.mark); !ok && !request(packet) {
		return h, false
	}
	h.At, h.From = time.Now(), netip.AddrFrom4([4]byte(packet[12:16]))
	for len(oob) >= unix.SizeofCmsghdr {
		m := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(m.Len)
		if size < unix.SizeofCmsghdr || size > len(oob) {
			break
		}
		switch data := oob[unix.SizeofCmsghdr:size]; {
		case m.Level == unix.SOL_SOCKET && m.Type == unix.SO_TIMESTAMPNS_NEW && len(data) >= 16:
			// When the kernel took it: an agent that was kept from running does not take it for the path's slowness.
			h.At = time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
		case m.Level == unix.SOL_IP && m.Type == unix.IP_PKTINFO && h.Number == 0 && len(data) >= 4:
			h.Dev = c.names[int(binary.NativeEndian.Uint32(data))]
		}
		oob = oob[min((size+7)&^7, len(oob)):]
	}
	return h, true
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
