package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"time"
)

// UDPSent is what udp-send did.
type UDPSent struct {
	Sent uint64 `json:"sent"`
}

// UDPReceived is what udp-receive saw of the packets 1 to Sent.
type UDPReceived struct {
	Sent     uint64  `json:"sent"` // as the sender says at its end
	Received uint64  `json:"received"`
	Lost     uint64  `json:"lost"`
	Repeated uint64  `json:"repeated"`
	Silence  float64 `json:"longest_silence_ms"`
}

// A packet is two numbers: its own, from 1, and the total, which is 0 until the sender ends.
const packetSize = 16

func udpSend(ctx context.Context, addr string, rate int) (*UDPSent, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	packet := make([]byte, packetSize)
	n, err := pace(ctx, rate, func(n uint64) error {
		binary.BigEndian.PutUint64(packet, n)
		_, err := conn.Write(packet)
		return err
	})
	if err != nil {
		return &UDPSent{n}, fmt.Errorf("send packet %d: %w", n+1, err)
	}
	// The end is said several times: it is no part of what is counted, and one might be lost.
	binary.BigEndian.PutUint64(packet, 0)
	binary.BigEndian.PutUint64(packet[8:], n)
	for range 10 {
		if _, err := conn.Write(packet); err != nil {
			break // the receiver has heard the first one and is gone
		}
		time.Sleep(20 * time.Millisecond)
	}
	return &UDPSent{n}, nil
}

func udpReceive(ctx context.Context, addr string) (*UDPReceived, error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var (
		r      UDPReceived
		seen   = map[uint64]bool{}
		last   time.Time
		packet = make([]byte, packetSize+1)
	)
	for {
		n, _, err := conn.ReadFrom(packet)
		if err != nil {
			return &r, fmt.Errorf("receive: %w", err)
		}
		if n != packetSize {
			return &r, fmt.Errorf("receive: a packet of %d bytes is not ours", n)
		}
		number, total := binary.BigEndian.Uint64(packet), binary.BigEndian.Uint64(packet[8:])
		if total > 0 {
			r.Sent, r.Lost = total, total-r.Received
			return &r, nil
		}
		now := time.Now()
		if !last.IsZero() {
			r.Silence = max(r.Silence, now.Sub(last).Seconds()*1000)
		}
		last = now
		if seen[number] {
			r.Repeated++
			continue
		}
		seen[number] = true
		r.Received++
	}
}
