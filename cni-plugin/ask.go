package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/cni-plugin/crash"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
)

// replyTimeout bounds the wait for the daemon. It is well below the runtimes' own limits (kubelet: 4 minutes), and far
// above what an ADD takes.
const replyTimeout = 20 * time.Second

// ask sends one request and reads the answer. Package net would add a third to the plugin's size and start-up; what it
// has of Go's poller package os has too.
func ask(socket string, req wire.Request) (wire.Response, error) {
	line, err := wire.Encode(req)
	if err != nil {
		return wire.Response{}, err
	}
	conn, err := dial(socket)
	if err != nil {
		return wire.Response{}, err
	}
	defer conn.Close()
	crash.Point("connected")
	if err := send(conn, line, req); err != nil {
		return wire.Response{}, fmt.Errorf("send request: %w", err)
	}
	crash.Point("sent")
	var res wire.Response
	answer, err := receive(conn)
	if err != nil {
		return res, fmt.Errorf("read answer: %w", err)
	}
	crash.Point("answered")
	if err := json.Unmarshal(answer, &res); err != nil {
		return res, fmt.Errorf("decode answer: %w", err)
	}
	return res, nil
}

// dial connects. Only then the socket goes to the poller: there the wait for the answer is quiet, while in a plain system
// call Go's runtime looks after it every 20 us, which costs a quarter of the plugin's time. A connect that must wait for
// the agent's queue would fail at once on such a socket.
func dial(socket string) (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	limit := syscall.NsecToTimeval(int64(replyTimeout))
	err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit)
	if err == nil {
		err = again(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) })
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn := os.NewFile(uintptr(fd), socket)
	return conn, conn.SetDeadline(time.Now().Add(replyTimeout))
}

// send writes the request; the namespace's descriptor goes with its first bytes. A namespace that cannot be opened is
// left out: it is gone, which DEL allows and which the daemon says clearly for ADD and CHECK.
func send(conn *os.File, line []byte, req wire.Request) error {
	var rights []byte
	if req.NetNS != "" {
		if ns, err := syscall.Open(req.NetNS, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err == nil {
			defer syscall.Close(ns)
			rights = syscall.UnixRights(ns)
		}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		for len(line) > 0 {
			var n int
			failed = again(func() (err error) {
				n, err = syscall.SendmsgN(int(fd), line, rights, nil, syscall.MSG_NOSIGNAL)
				return err
			})
			if errors.Is(failed, syscall.EAGAIN) {
				return false // called again when there is room
			}
			if failed != nil {
				return true
			}
			line, rights = line[n:], nil
		}
		return true
	})
	return errors.Join(err, failed)
}

func receive(conn *os.File) ([]byte, error) {
	var answer []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("no answer within %s", replyTimeout)
		case errors.Is(err, io.EOF):
			return nil, errors.New("the agent closed the connection; it may be restarting")
		case err != nil:
			return nil, err
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
