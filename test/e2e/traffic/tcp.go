package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// TCPSent is what tcp-send did over its one connection.
type TCPSent struct {
	Sent    uint64  `json:"sent"`   // records of 64 bytes
	Echoed  uint64  `json:"echoed"` // that came back, in order and whole
	Silence float64 `json:"longest_silence_ms"`
}

// TCPServed is what tcp-serve did with its one connection.
type TCPServed struct {
	Bytes int64 `json:"bytes"`
}

const recordSize = 64

// tcpServe echoes what one connection sends until it ends.
func tcpServe(ctx context.Context, addr string) (*TCPServed, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	n, err := io.Copy(conn, conn)
	return &TCPServed{n}, err
}

// tcpSend sends numbered records over one connection, never a second one, and checks that each comes back in order.
func tcpSend(ctx context.Context, addr string, rate int) (*TCPSent, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var r TCPSent
	echoes := make(chan error, 1)
	go func() { echoes <- r.check(conn) }()
	record := make([]byte, recordSize)
	sent, err := pace(ctx, rate, func(n uint64) error {
		fill(record, n)
		_, err := conn.Write(record)
		return err
	})
	if err == nil {
		err = errors.Join(conn.(*net.TCPConn).CloseWrite(), conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	} else {
		_ = conn.Close() // the reader below then ends
	}
	err = errors.Join(err, <-echoes)
	r.Sent = sent
	if err == nil && r.Echoed != sent {
		err = fmt.Errorf("the stream ended after %d of %d records", r.Echoed, sent)
	}
	return &r, err
}

func (r *TCPSent) check(conn net.Conn) error {
	in, last := bufio.NewReader(conn), time.Now()
	got, want := make([]byte, recordSize), make([]byte, recordSize)
	for {
		_, err := io.ReadFull(in, got)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read echo %d: %w", r.Echoed+1, err)
		}
		fill(want, r.Echoed+1)
		if string(got) != string(want) {
			return fmt.Errorf("echo %d is %x, want %x", r.Echoed+1, got, want)
		}
		r.Echoed++
		r.Silence = max(r.Silence, time.Since(last).Seconds()*1000)
		last = time.Now()
	}
}

// fill makes every byte of the record depend on its number.
func fill(record []byte, n uint64) {
	for i := 0; i < len(record); i += 8 {
		binary.BigEndian.PutUint64(record[i:], n*uint64(i+1))
	}
}
