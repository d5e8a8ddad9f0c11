package cni

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// slow is a network whose first Attach waits to be let on. Calls for one key come one after the other, as overlay's.
type slow struct {
	Network
	begun, on chan struct{} // of the first Attach

	mu       sync.Mutex
	attached bool
	calls    []string
}

func (n *slow) Ready(context.Context) error { return nil }

func (n *slow) Attach(_ context.Context, r overlay.Request) (plan.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.calls) == 0 {
		close(n.begun)
		<-n.on
	}
	n.calls, n.attached = append(n.calls, "attach"), true
	return plan.Attachment{Key: r.Key, Network: r.Network, Addr: netip.MustParseAddr("10.42.1.2"), Reach: netip.MustParsePrefix("10.42.0.0/16")}, nil
}

func (n *slow) Detach(context.Context, plan.Key, string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls, n.attached = append(n.calls, "detach"), false
	return nil
}

func TestAnAddAfterOneWhosePluginDiedIsNotUndoneWithIt(t *testing.T) {
	t.Parallel()
	n := &slow{begun: make(chan struct{}), on: make(chan struct{})}
	d := New(filepath.Join(t.TempDir(), "cni.sock"), n, slog.New(slog.NewTextHandler(t.Output(), nil)), &stat.Registry{})
	line, err := wire.Encode(wire.Request{
		Version: wire.Version, Command: "ADD", ContainerID: "a", IfName: "eth0", NetNS: "/proc/self/ns/net",
		Config: json.RawMessage(`{"cniVersion":"1.1.0","name":"blue","type":"fairlead-cni"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	plugin := func() net.Conn {
		ours, theirs := pair(t)
		if _, _, err := theirs.WriteMsgUnix(line, unix.UnixRights(int(os.Stdin.Fd())), nil); err != nil {
			t.Fatal(err)
		}
		served.Go(func() { d.serve(t.Context(), ours) })
		return theirs
	}
	killed := plugin()
	<-n.begun
	_ = killed.Close()
	second := plugin()
	defer second.Close()
	close(n.on)
	answer, err := bufio.NewReader(second).ReadString('\n')
	if err != nil || !strings.Contains(answer, "10.42.1.2") {
		t.Fatalf("the second ADD was answered %q (%v)", answer, err)
	}
	served.Wait()
	if !n.attached {
		t.Errorf("the second ADD was told its address, and the container is off: %v", n.calls)
	}
}
