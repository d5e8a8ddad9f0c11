//go:build kernel

package restart

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// packets is one flow of numbered UDP packets, and which of them arrived.
type packets struct {
	rate    atomic.Int64 // packets a second
	sent    atomic.Uint64
	refused atomic.Uint64 // writes that failed: an ICMP error came back

	mu    sync.Mutex
	seen  []bool // by number
	twice int
}

// sendPackets sends from one namespace to an address, and counts at port in another, until the test ends.
func sendPackets(t *testing.T, from *hosttest.NetNamespace, addr string, at *hosttest.NetNamespace, port int) *packets {
	t.Helper()
	p := &packets{}
	var in *net.UDPConn
	var out net.Conn
	if err := at.Run(func() (err error) {
		in, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	if err := roomy(in); err != nil {
		t.Fatal(err)
	}
	if err := from.Run(func() (err error) {
		out, err = net.Dial("udp", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_, _ = in.Close(), out.Close() // the goroutines end by it
		all.Wait()
	})
	all.Go(func() { p.receive(in) })
	all.Go(func() { p.send(ctx, out) })
	return p
}

// roomy gives a socket room for a second of packets: the test is about the network, not about when a busy machine
// gives the receiver a CPU.
func roomy(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	})
	return errors.Join(err, fault)
}

// mostAtOnce bounds what is sent together after the sender had no CPU: a device's queue has room for 1,000
// (net.core.netdev_max_backlog).
const mostAtOnce = 100

func (p *packets) send(ctx context.Context, c net.Conn) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	buf, last, due := make([]byte, 8), time.Now(), 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due += now.Sub(last).Seconds() * float64(p.rate.Load())
			last = now
		}
		for range min(mostAtOnce, int(due)) {
			due--
			binary.BigEndian.PutUint64(buf, p.sent.Load())
			if _, err := c.Write(buf); err != nil && ctx.Err() == nil {
				p.refused.Add(1)
			}
			p.sent.Add(1)
		}
	}
}

func (p *packets) receive(c *net.UDPConn) {
	buf := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		n := binary.BigEndian.Uint64(buf)
		p.mu.Lock()
		for uint64(len(p.seen)) <= n {
			p.seen = append(p.seen, false)
		}
		if p.seen[n] {
			p.twice++
		}
		p.seen[n] = true
		p.mu.Unlock()
	}
}

// lost counts the packets from number from on to before to that have not arrived, after waiting some time for them.
func (p *packets) lost(from, to uint64) (n int) {
	for range 100 {
		n = 0
		p.mu.Lock()
		for i := from; i < to; i++ {
			if i >= uint64(len(p.seen)) || !p.seen[i] {
				n++
			}
		}
		p.mu.Unlock()
		if n == 0 {
			return 0
		}
		time.Sleep(10 * time.Millisecond) // they may be in the receiver's queue
	}
	return n
}

// repeated counts the packets that came more than once.
func (p *packets) repeated() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.twice
}

// stream is one TCP connection whose numbered records come back from the other end.
type stream struct {
	name   string
	sent   atomic.Uint64
	echoed atomic.Uint64
	broken atomic.Pointer[error]
	seenAs string // the client's address, by the server's word
}

// openStream connects a client to a server that listens at port, and sends a number each millisecond until the test ends.
func openStream(t *testing.T, name string, from *hosttest.NetNamespace, addr string, at *hosttest.NetNamespace, port int) *stream {
	t.Helper()
	s := &stream{name: name}
	var l net.Listener
	var client net.Conn
	if err := at.Run(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := from.Run(func() (err error) {
		client, err = net.DialTimeout("tcp", addr, 10*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.seenAs = server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		_, _, _ = client.Close(), server.Close(), l.Close() // the goroutines end by it
		all.Wait()
	})
	all.Go(func() { _, err := io.Copy(server, server); s.note(ctx, err) })
	all.Go(func() { s.note(ctx, s.write(ctx, client)) })
	all.Go(func() { s.note(ctx, s.read(client)) })
	all.Go(func() { // whoever connects anew is welcome, and heard no further
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	return s
}

// note keeps how the stream ended, unless the test ended it.
func (s *stream) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = io.EOF
	}
	s.broken.CompareAndSwap(nil, &err)
}

func (s *stream) write(ctx context.Context, c net.Conn) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := c.Write(binary.BigEndian.AppendUint64(nil, s.sent.Load())); err != nil {
			return err
		}
		s.sent.Add(1)
	}
}

func (s *stream) read(c net.Conn) error {
	buf := make([]byte, 8)
	for want := uint64(0); ; want++ {
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(buf); got != want {
			return fmt.Errorf("record %d came back where %d was due", got, want)
		}
		s.echoed.Store(want + 1)
	}
}

// whole waits until all that was sent has come back; an error says how the stream broke.
func (s *stream) whole() error {
	sent := s.sent.Load()
	for range 1000 {
		if err := s.broken.Load(); err != nil {
			return fmt.Errorf("%s: broken after %d records: %w", s.name, s.echoed.Load(), *err)
		}
		if s.echoed.Load() >= sent {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // TCP may be sending again
	}
	return fmt.Errorf("%s: %d records were sent, %d came back", s.name, sent, s.echoed.Load())
}

// knocks are new TCP connections, one after the other.
type knocks struct {
	made    int
	longest time.Duration
	err     error // the first one that was not made
}

// knock makes connections until done is closed.
func knock(from *hosttest.NetNamespace, addr string, done <-chan struct{}) (k knocks) {
	k.err = from.Run(func() error {
		for {
			select {
			case <-done:
				return nil
			case <-time.After(2 * time.Millisecond): // so that the ports do not run out in TIME_WAIT
			}
			began := time.Now()
			c, err := net.DialTimeout("tcp", addr, 10*time.Second)
			if err != nil {
				return fmt.Errorf("new connection after %d: %w", k.made, err)
			}
			_ = c.Close() // nothing was sent
			k.made++
			k.longest = max(k.longest, time.Since(began))
		}
	})
	return k
}
