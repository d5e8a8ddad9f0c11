// Traffic is the small program inside the demo's containers that makes load of a known amount and checks what arrives:
// packets, a byte stream, log lines and CPU time, each counted one by one.
//
//	traffic udp-receive :7000               traffic udp-send 10.42.2.2:7000 1000
//	traffic tcp-serve :7001                 traffic tcp-send 10.42.2.2:7001 1000
//	traffic lines 'demo a' 200 NAME=FILE...   traffic burn 2s
//
// The senders and `lines` go on until SIGTERM, then print one line of JSON with what they did; the receivers end with
// their sender. It owns nothing.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	report, err := run(ctx, os.Args[1:])
	if report != nil {
		if b, encErr := json.Marshal(report); encErr == nil {
			fmt.Println(string(b))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (any, error) {
	if len(args) < 2 {
		return nil, fmt.Errorf("want a command and its arguments, see the package comment")
	}
	command, args := args[0], args[1:]
	switch {
	case command == "udp-receive" && len(args) == 1:
		return udpReceive(ctx, args[0])
	case command == "tcp-serve" && len(args) == 1:
		return tcpServe(ctx, args[0])
	case command == "burn" && len(args) == 1:
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return nil, err
		}
		return burn(ctx, d)
	}
	if len(args) < 2 {
		return nil, fmt.Errorf("%s: unknown command or too few arguments", command)
	}
	rate, err := strconv.Atoi(args[1])
	if err != nil || rate < 1 {
		return nil, fmt.Errorf("%s: rate %q is not a positive number", command, args[1])
	}
	switch command {
	case "udp-send":
		return udpSend(ctx, args[0], rate)
	case "tcp-send":
		return tcpSend(ctx, args[0], rate)
	case "lines":
		return lines(ctx, args[0], rate, args[2:])
	}
	return nil, fmt.Errorf("unknown command %s", command)
}

// pace calls f(n) for n = 1, 2, ... at rate calls a second until ctx ends or f fails, and gives the last n. When the
// machine is busy it catches up, so that the rate holds on average.
func pace(ctx context.Context, rate int, f func(n uint64) error) (uint64, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start, n := time.Now(), uint64(0)
	for {
		for due := uint64(time.Since(start).Seconds() * float64(rate)); n < due; {
			n++
			if err := f(n); err != nil {
				return n - 1, err
			}
		}
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
	}
}
