//go:build kernel

package hosttest

import (
	"net"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/host"
)

func TestANetworkNamespaceIsNewAndRunsInside(t *testing.T) {
	Root(t)
	own, err := host.StatNetNS("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	n := NetNS(t)
	byPath, err := host.StatNetNS(n.Path)
	if err != nil || byPath == own {
		t.Errorf("the path leads to %s (%v), our own is %s", byPath, err, own)
	}
	err = n.Run(func() error {
		inside, err := host.StatNetNS("/proc/thread-self/ns/net")
		if inside != byPath {
			t.Errorf("inside is %s, want %s", inside, byPath)
		}
		if err != nil {
			return err
		}
		links, err := net.Interfaces()
		if len(links) != 1 || links[0].Name != "lo" || links[0].Flags&net.FlagUp == 0 {
			t.Errorf("links are %+v, want lo alone, up", links)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if after, err := host.StatNetNS("/proc/thread-self/ns/net"); err != nil || after != own {
		t.Errorf("afterwards this goroutine is in %s (%v), want %s", after, err, own)
	}
}

func TestTheRerunIsInANamespaceOfItsOwn(t *testing.T) {
	if !InOwnNetNS(t) {
		return
	}
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 || links[0].Flags&net.FlagUp == 0 {
		t.Errorf("links are %+v (%v), want lo alone, up", links, err)
	}
}
