package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/cni-plugin/crash"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
)

// replyTimeout bounds the wait for the daemon. It is well below the runtimes' own limits (kubelet: 4 minutes), and far
// above what an ADD takes.
const replyTimeout = 20 * time.Second

// ask sends one request and reads the answer. It uses plain system calls: package net would add a third to the
// plugin's size and start-up for a poller that one blocking connection does not need.
func ask(socket string, req wire.Request) (wire.Response, error) {
	line, err := wire.Encode(req)
	if err != nil {
		return wire.Response{}, err
	}
	fd, err := dial(socket)
	if err != nil {
		return wire.Response{}, err
	}
	defer syscall.Close(fd)
	crash.Point("connected")
	if err := send(fd, line, req); err != nil {
		return wire.Response{}, fmt.Errorf("send request: %w", err)
	}
	crash.Point("sent")
	var res wire.Response
	answer, err := receive(fd)
	if err != nil {
		return res, fmt.Errorf("read answer: %w", err)
	}
	crash.Point("answered")
	if err := json.Unmarshal(answer, &res); err != nil {
		return res, fmt.Errorf("decode answer: %w", err)
	}
	return res, nil
}

func dial(socket string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := syscall.NsecToTimeval(int64(replyTimeout))
	err = errors.Join(
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit))
	if err == nil {
		err = again(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) })
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// send writes the request; the namespace's descriptor goes with its first bytes. A namespace that cannot be opened is
// left out: it is gone, which DEL allows and which the daemon says clearly for ADD and CHECK.
func send(fd int, line []byte, req wire.Request) error {
	var rights []byte
	if req.NetNS != "" {
		if ns, err := syscall.Open(req.NetNS, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err == nil {
			defer syscall.Close(ns)
			rights = syscall.UnixRights(ns)
		}
	}
	for len(line) > 0 {
		var n int
		err := again(func() (err error) {
			n, err = syscall.SendmsgN(fd, line, rights, nil, syscall.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return err
		}
		line, rights = line[n:], nil
	}
	return nil
}

func receive(fd int) ([]byte, error) {
	var answer []byte
	buf := make([]byte, 16<<10)
	for {
		var n int
		err := again(func() (err error) {
			n, err = syscall.Read(fd, buf)
			return err
		})
		switch {
		case errors.Is(err, syscall.EAGAIN): // SO_RCVTIMEO
			return nil, fmt.Errorf("no answer within %s", replyTimeout)
		case err != nil:
			return nil, err
		case n == 0:
			return nil, errors.New("the agent closed the connection; it may be restarting")
		}
		answer = append(answer, buf[:n]...)
		if end := bytes.IndexByte(answer, '\n'); end >= 0 {
			return answer[:end], nil
		}
		if len(answer) >= wire.MaxMessage {
			return nil, fmt.Errorf("answer exceeds %d bytes", wire.MaxMessage)
		}
	}
}

// again repeats a system call that a signal interrupted; Go's preemption signals make that ordinary.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
