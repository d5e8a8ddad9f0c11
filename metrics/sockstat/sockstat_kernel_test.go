//go:build kernel

package sockstat

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestSocketsOfAnotherNamespaceAreCountedByState(t *testing.T) {
	ns := hosttest.NetNS(t)
	var (
		open []interface{ Close() error }
		path string
	)
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	if err := ns.Run(func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		a, err := l.Accept()
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		open = append(open, l, c, a, u)
		v, err := net.Dial("udp4", u.LocalAddr().String())
		if err != nil {
			return err
		}
		open = append(open, v)
		if _, err := v.Write(make([]byte, 100)); err != nil {
			return err
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		path = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		f, err := os.Open(path)
		if err == nil {
			path = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
			open = append(open, f)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path, time.Now().Add(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"listen": 1, "established": 2}
	for i, name := range States() {
		if got.TCP[i] != want[name] || got.TCP6[i] != 0 {
			t.Errorf("%s: %d, and %d of IPv6; want %d", name, got.TCP[i], got.TCP6[i], want[name])
		}
	}
	if got.UDP.Listen != 1 || got.UDP.RxQueued < 100 || got.UDP.Dropped != 0 || got.UDP6 != (UDP{}) {
		t.Errorf("UDP %+v, IPv6 %+v", got.UDP, got.UDP6)
	}
	if _, err := Read("/proc/self/ns/none", time.Now()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
