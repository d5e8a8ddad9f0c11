//go:build kernel

package overlay_test

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/agent/supervisor"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestANewAddressOfTheUnderlayIsTakenAndToldToTheOthers(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	etcd := hosttest.Etcd(t)
	s := &site{t: t, outside: hosttest.NetNS(t)}
	s.sh(`ip link add under type veth peer name far netns ` + s.outside.Path + `; ip addr add 192.0.2.11/24 dev under; ip link set under up
		nsenter --net=` + s.outside.Path + ` ip link set far up; ip route add default via 192.0.2.99`)
	c := overlay.DefaultConfig()
	c.Store, c.Etcd.Endpoints, c.Etcd.Grace = "etcd", []string{etcd.URL}, time.Second
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir, err := state.Open(t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	s.o, err = overlay.New(c, overlay.Deps{Log: log, Stats: &stat.Registry{}, State: dir, Root: host.DefaultRoot(), Board: board{}, NodeName: "web1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor.New(log, &stat.Registry{}).Run(ctx, agent.Part{Name: "overlay", Run: s.o.Run})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	until := func(what, local string) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // agent, kernel and etcd are each at work
			told, _ := etcd.Run(t.Context(), "etcdctl", "--endpoints", etcd.URL, "get", "--print-value-only", "/fairlead/v1/default/nodes/web1")
			device := s.sh("ip -d link show fl-vx42 2>/dev/null || true")
			if strings.Contains(device, "local "+local+" ") && strings.Contains(told, `"`+local+`"`) {
				return
			}
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%s: the device is\n%s\nand etcd has %s", what, device, told)
			}
		}
	}
	until("start", "192.0.2.11")
	b := s.box("b", "fairlead")
	began := time.Now()
	s.sh("ip addr add 192.0.2.21/24 dev under; ip addr del 192.0.2.11/24 dev under; ip addr add 192.0.2.21/24 dev under 2>/dev/null || true; ip route replace default via 192.0.2.99")
	until("moved", "192.0.2.21")
	t.Logf("taken after %s", time.Since(began))
	if got := s.o.Attachments(); len(got) != 1 || got[0].Addr != b.Addr {
		t.Errorf("attachments after it: %v", got)
	}
	if _, err := netip.ParseAddr(s.ask(b.NetNamespace, at(b.Addr, 80))); err != nil {
		t.Errorf("the container does not answer itself: %v", err)
	}
}
