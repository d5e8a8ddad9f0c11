package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
)

// Switch passes Ethernet frames between machines, each to all others, like a hub: with a handful of machines no table of
// addresses is worth its bugs.
type Switch struct {
	Path string // of the socket that machines connect to

	l     *net.UnixListener
	wg    sync.WaitGroup
	mu    sync.Mutex
	ports map[*port]bool
}

// port is one machine's connection.
type port struct {
	conn net.Conn
	out  chan []byte
}

// queued is how many frames may wait for a machine that is slow; more are dropped, as a real switch would.
const queued = 1000

// NewSwitch starts a switch whose socket is in dir.
func NewSwitch(dir string) (*Switch, error) {
	s := &Switch{Path: filepath.Join(dir, "switch"), ports: map[*port]bool{}}
	var err error
	if s.l, err = listen(s.Path); err != nil {
		return nil, fmt.Errorf("start switch: %w", err)
	}
	s.wg.Go(func() {
		for {
			conn, err := s.l.Accept()
			if err != nil {
				return // closed
			}
			p := &port{conn: conn, out: make(chan []byte, queued)}
			s.mu.Lock()
			s.ports[p] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(p) })
		}
	})
	return s, nil
}

// serve passes on what one machine sends until its connection ends. On the wire each frame has its length in front.
func (s *Switch) serve(p *port) {
	var sender sync.WaitGroup
	sender.Go(func() {
		for frame := range p.out {
			if _, err := p.conn.Write(frame); err != nil {
				return
			}
		}
	})
	for {
		frame, err := read(p.conn)
		if err != nil {
			break
		}
		s.mu.Lock()
		for other := range s.ports {
			if other == p {
				continue
			}
			select {
			case other.out <- frame:
			default:
			}
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	delete(s.ports, p)
	close(p.out)
	s.mu.Unlock()
	_ = p.conn.Close() // perhaps by Close already
	sender.Wait()
}

// read gives the next frame with its length in front.
func read(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > 1<<18 {
		return nil, errors.New("no frame is that long")
	}
	frame := make([]byte, 4+n)
	copy(frame, head[:])
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

// Close ends the switch and all connections.
func (s *Switch) Close() {
	_ = s.l.Close() // nobody can act on it, here and below
	s.mu.Lock()
	for p := range s.ports {
		_ = p.conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
