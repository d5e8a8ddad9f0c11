package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
)

// loopback serves a network of type "loopback", which older containerds (1.6) ask for beside the real one and want a
// program of that name for. It needs no daemon: ADD sets lo up, CHECK tells whether it is, and the others have nothing
// to do, because lo ends with its namespace.
func (c Call) loopback(command, version string, prev json.RawMessage) error {
	if command != "ADD" && command != "CHECK" {
		return nil
	}
	path := c.Env("CNI_NETNS")
	up, err := loopbackUp(path, command == "ADD")
	if err != nil {
		return wire.Errorf(wire.CodeFailed, "set lo up in "+path, err)
	}
	if command == "CHECK" {
		if !up {
			return &wire.Error{Code: wire.CodeFailed, Msg: "lo in " + path + " is down"}
		}
		return nil
	}
	if len(prev) == 0 {
		prev, err = json.Marshal(map[string]any{
			"cniVersion": version,
			"interfaces": []map[string]string{{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": path}},
			"ips":        []map[string]any{loopbackAddress(version)},
		})
	}
	fmt.Fprintf(c.Stdout, "%s\n", prev)
	return err
}

func loopbackAddress(version string) map[string]any {
	ip := map[string]any{"address": "127.0.0.1/8", "interface": 0}
	if version == "0.3.1" || version == "0.4.0" {
		ip["version"] = "4" // required before 1.0.0
	}
	return ip
}

// loopbackUp looks whether lo is up in a namespace, and sets it up when asked. Its thread ends with it.
func loopbackUp(path string, set bool) (up bool, err error) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		up, err = inNamespace(path, set)
	}()
	<-done
	return up, err
}

// setns is the number of the system call, which package syscall does not name on amd64.
var setns = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

// ifreq is the kernel's struct ifreq with flags in its union.
type ifreq struct {
	name  [syscall.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

func inNamespace(path string, set bool) (bool, error) {
	if setns == 0 {
		return false, errors.New("not known how on " + runtime.GOARCH)
	}
	ns, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer syscall.Close(ns)
	if _, _, errno := syscall.RawSyscall(setns, uintptr(ns), syscall.CLONE_NEWNET, 0); errno != 0 {
		return false, fmt.Errorf("enter it: %w", errno)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer syscall.Close(fd)
	lo := ifreq{name: [syscall.IFNAMSIZ]byte{'l', 'o'}}
	if err := ioctl(fd, syscall.SIOCGIFFLAGS, &lo); err != nil {
		return false, err
	}
	up := lo.flags&syscall.IFF_UP != 0
	if up || !set {
		return up, nil
	}
	lo.flags |= syscall.IFF_UP
	err = ioctl(fd, syscall.SIOCSIFFLAGS, &lo)
	return err == nil, err
}

func ioctl(fd int, request uintptr, r *ifreq) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(r))); errno != 0 {
		return errno
	}
	return nil
}
