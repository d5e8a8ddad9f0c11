package main

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// proxy is the wire between one life of an agent and etcd, which can be slow, cut, or lose its connections. What the
// agent sent before it died arrives when the wire is whole again, as TCP has it; what it sends while it is being ended
// does not: a crash says no goodbye.
type proxy struct {
	net.Listener
	to string

	mu     sync.Mutex
	whole  chan struct{} // closed while the wire is whole
	dead   bool
	slow   time.Duration
	conns  map[net.Conn]bool
	copies sync.WaitGroup
}

func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{Listener: l, to: to, whole: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.whole)
	p.copies.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "http://" + p.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.Accept()
		if err != nil {
			return // closed
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close() // as etcd would, that is away
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		p.copies.Go(func() { p.copy(in, out) })
		p.copies.Go(func() { p.copy(out, in) })
	}
}

// copy passes on what comes, late while the wire is slow, and not at all while it is cut.
func (p *proxy) copy(to, from net.Conn) {
	defer func() {
		_ = to.Close()
		p.mu.Lock()
		delete(p.conns, to)
		p.mu.Unlock()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		whole, slow, dead := p.whole, p.slow, p.dead
		p.mu.Unlock()
		if dead {
			return
		}
		<-whole
		time.Sleep(slow)
		if _, failed := to.Write(b[:n]); err != nil || failed != nil {
			return
		}
	}
}

// cut holds back what is sent from now on.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.whole:
		p.whole = make(chan struct{})
	default:
	}
}

// die passes on nothing that is sent from now on.
func (p *proxy) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// heal is the end of cut, and of slowness.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = 0
	select {
	case <-p.whole:
	default:
		close(p.whole)
	}
}

func (p *proxy) delay(rng *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = time.Duration(rng.IntN(300)) * time.Millisecond
}

// lose breaks all connections.
func (p *proxy) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) end() {
	_ = p.Close()
	p.heal()
	p.lose()
	p.copies.Wait()
}
