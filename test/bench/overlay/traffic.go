package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	trafficPort = 7000
	payload     = 64 // bytes of a small packet's UDP payload
	batch       = 64 // of them in one system call
)

// traffic is a process in a container that sends or receives, by its role. It prints what it saw as JSON.
func traffic(role string, args []string) error {
	f := flag.NewFlagSet(role, flag.ContinueOnError)
	addr := f.String("addr", "", "of the one that listens")
	n := f.Int("n", 0, "round trips")
	lasting := f.Duration("for", time.Second, "how long packets are sent")
	if err := f.Parse(args); err != nil {
		return err
	}
	debug.SetGCPercent(-1) // it allocates nothing that is worth a pause
	at, err := netip.ParseAddr(*addr)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{Port: trafficPort, Addr: at.As4()}
	var out any
	switch role {
	case "sink", "echo":
		// The flood must find room; a rate is told of what was read.
		if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20), unix.Bind(fd, sa)); err != nil {
			return err
		}
		fmt.Println(`"listening"`)
		if role == "echo" {
			return echo(fd)
		}
		out, err = sink(fd)
	case "flood":
		if err := unix.Connect(fd, sa); err != nil {
			return err
		}
		out, err = flood(fd, *lasting)
	case "ping":
		if err := unix.Connect(fd, sa); err != nil {
			return err
		}
		out, err = ping(fd, *n)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// packets is what a sink or a flood counted.
type packets struct {
	N    int
	Took time.Duration // from the first to the last
	CPU  time.Duration // of the sender, in whose time the kernel carries a packet to its end
}

func (p packets) rate() float64 { return float64(p.N) / p.Took.Seconds() }

// mmsghdr is that of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func messages() []mmsghdr {
	all := make([]mmsghdr, batch)
	for i := range all {
		buf := make([]byte, payload)
		all[i].hdr.Iov = &unix.Iovec{Base: &buf[0], Len: payload}
		all[i].hdr.SetIovlen(1)
	}
	return all
}

func mmsg(call uintptr, fd int, all []mmsghdr, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&all[0])), uintptr(len(all)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// sink counts what comes until its standard input ends. It looks now and then instead of waiting: waking it costs more
// than a packet's whole way, and how often that happens is not the way's doing.
func sink(fd int) (p packets, err error) {
	const nap = 200 * time.Microsecond
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	all := messages()
	var first, last time.Time
	for {
		ends := over.Load() // before the look: what came until then counts
		n, err := mmsg(unix.SYS_RECVMMSG, fd, all, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) && ends:
			p.Took = last.Sub(first)
			return p, nil
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(nap)
			continue
		case err != nil && !errors.Is(err, unix.EINTR):
			return p, err
		}
		last = time.Now()
		if first.IsZero() {
			first = last // what came before the time began does not count
			continue
		}
		p.N += n
	}
}

// flood sends as fast as it can.
func flood(fd int, lasting time.Duration) (p packets, err error) {
	all := messages()
	for began := time.Now(); p.Took < lasting; p.Took = time.Since(began) {
		n, err := mmsg(unix.SYS_SENDMMSG, fd, all, 0)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return p, fmt.Errorf("send: %w", err)
		}
		p.N += n
	}
	var used unix.Rusage
	err = unix.Getrusage(unix.RUSAGE_SELF, &used)
	p.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return p, err
}

// echo sends back what comes, for as long as it lives.
func echo(fd int) error {
	buf := make([]byte, payload)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == nil {
			err = unix.Sendto(fd, buf[:n], 0, from)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// trips are round trips in microseconds.
type trips struct{ P50, Mean, P99 float64 }

func ping(fd, n int) (trips, error) {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return trips{}, err
	}
	buf, took := make([]byte, 1), make([]float64, 0, n)
	const warm = 200
	for i := range warm + n {
		began := time.Now()
		if _, err := unix.Write(fd, buf); err != nil {
			return trips{}, fmt.Errorf("send: %w", err)
		}
		if _, err := unix.Read(fd, buf); err != nil {
			return trips{}, fmt.Errorf("round trip %d: %w", i, err)
		}
		if i >= warm {
			took = append(took, float64(time.Since(began).Nanoseconds())/1000)
		}
	}
	slices.Sort(took)
	var sum float64
	for _, t := range took {
		sum += t
	}
	return trips{took[n/2], sum / float64(n), took[n*99/100]}, nil
}
