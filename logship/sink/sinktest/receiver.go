package sinktest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Receiver is an octet-counted syslog receiver (RFC 6587) on loopback that keeps every message.
type Receiver struct {
	Addr string

	mu      sync.Mutex
	mode    Mode
	msgs    []string
	change  *sync.Cond
	ln      net.Listener
	stopped bool
	conns   map[net.Conn]bool
	wg      sync.WaitGroup
}

// Mode is how a Receiver treats its senders.
type Mode int

// The modes.
const (
	Reading Mode = iota
	Rude         // accepts, waits for bytes, and closes without reading them: the sender gets a reset
	Stuck        // accepts and reads nothing until the mode changes
)

// Set changes the mode, for what is connected too.
func (r *Receiver) Set(m Mode) {
	r.mu.Lock()
	r.mode = m
	r.mu.Unlock()
	r.change.Broadcast()
}

// unstuck waits while the mode is Stuck and gives what it is then.
func (r *Receiver) unstuck() Mode {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.mode == Stuck && !r.stopped {
		r.change.Wait()
	}
	return r.mode
}

// Listen starts a Receiver on addr ("" is a free port); Cleanup ends it.
func Listen(t testing.TB, addr string) *Receiver {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &Receiver{Addr: ln.Addr().String(), ln: ln, conns: map[net.Conn]bool{}}
	r.change = sync.NewCond(&r.mu)
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[c] = true
			r.mu.Unlock()
			r.wg.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(r.Stop)
	return r
}

// Stop closes the listener and all connections and waits for them. It may be called twice.
func (r *Receiver) Stop() {
	_ = r.ln.Close()
	r.mu.Lock()
	r.stopped = true
	r.change.Broadcast()
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *Receiver) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 1<<16)
	for {
		if r.unstuck() == Rude {
			_ = r.rude(c)
			return
		}
		size, err := in.ReadString(' ')
		n, bad := strconv.Atoi(strings.TrimSuffix(size, " "))
		if err != nil || bad != nil {
			return
		}
		msg := make([]byte, n)
		if _, err := io.ReadFull(in, msg); err != nil {
			return
		}
		r.mu.Lock()
		r.msgs = append(r.msgs, string(msg))
		r.mu.Unlock()
		r.change.Broadcast()
	}
}

// rude lets bytes arrive, so that the sender's kernel sees them acknowledged, and resets the connection.
func (r *Receiver) rude(c net.Conn) error {
	tcp := c.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err == nil && n > 0
	})
	return errors.Join(err, tcp.Close())
}

// Messages gives what came so far.
func (r *Receiver) Messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.msgs...)
}

// Wait blocks until n messages have come and gives them. The test's own time limit is the bound.
func (r *Receiver) Wait(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.msgs) < n {
		r.change.Wait()
	}
	return append([]string(nil), r.msgs...)
}
