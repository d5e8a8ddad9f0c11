//go:build kernel

package container_test

import (
	"net/netip"
	"os/exec"
	"strconv"
	"testing"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

func TestAHostLinkLeadsToItsContainerWhoeverMadeIt(t *testing.T) {
	hosttest.Require(t, "ip")
	if !hosttest.InOwnNetNS(t) {
		return
	}
	d := hosttest.Containerd(t, false)
	run := t.TempDir()
	place(t, run, "containerd/containerd.sock", d.Address)
	v := inventory(t, run)
	must(t)(d.Ctr(t.Context(), "default", "run", "-d", "--null-io", "--cgroup", d.Cgroup+"/one", daemons.BusyboxName, "links-one"))
	await(t, v, "container", hasState("links-one", container.Running))
	pid := strconv.Itoa(find(v.Snapshot(), "links-one").PID)

	// One pair is born with its end inside, as ours are; the other is moved there, as Docker's are.
	ip(t, "link", "add", "born", "type", "veth", "peer", "name", "eth0", "netns", pid)
	ip(t, "link", "add", "moved", "type", "veth", "peer", "name", "inner")
	ip(t, "link", "set", "inner", "netns", pid)
	ip(t, "link", "set", "moved", "up")
	ip(t, "link", "add", "unrelated", "type", "veth", "peer", "name", "unrelated2")
	await(t, v, "both links", func(s *container.Snapshot) bool { return len(find(s, "links-one").Links) == 2 })
	for _, l := range find(v.Snapshot(), "links-one").Links {
		if c, ok := v.Snapshot().ByLink(l.Index); !ok || c.Name != "links-one" || l.Name != "born" && l.Name != "moved" {
			t.Errorf("link %+v leads to %+v", l, c)
		}
	}
	ip(t, "link", "del", "born")
	await(t, v, "removal of a link", func(s *container.Snapshot) bool {
		l := find(s, "links-one").Links
		return len(l) == 1 && l[0].Name == "moved"
	})
}

func TestAttachmentsAreJoinedByNetworkNamespace(t *testing.T) {
	d := hosttest.Containerd(t, false)
	run := t.TempDir()
	place(t, run, "containerd/containerd.sock", d.Address)
	v := inventory(t, run)
	must(t)(d.Ctr(t.Context(), "default", "run", "-d", "--null-io", "--cgroup", d.Cgroup+"/one", daemons.BusyboxName, "board-one"))
	await(t, v, "container", hasState("board-one", container.Running))
	ns := find(v.Snapshot(), "board-one").NetNS

	bare, err := host.StatNetNS(hosttest.NetNS(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	known := container.Attachment{Owner: "default-board-one", Network: "blue", Addrs: []netip.Addr{netip.MustParseAddr("10.42.0.2")}, NetNS: ns, Link: container.Link{Index: 1001, Name: "fl1"}}
	alone := container.Attachment{Owner: "bare", Network: "blue", NetNS: bare, Link: container.Link{Index: 1002, Name: "fl2"}}
	v.Board().Publish([]container.Attachment{known, alone})
	await(t, v, "attachments", func(s *container.Snapshot) bool {
		c, ok := s.Get("cni", "bare")
		return ok && c.State == container.Running && len(c.Attachments) == 1 && len(find(s, "board-one").Attachments) == 1
	})
	if len(v.Snapshot().Containers) != 2 {
		t.Errorf("containers are %+v", v.Snapshot().Containers)
	}
	if c, ok := v.Snapshot().ByLink(1002); !ok || c.ID != "bare" {
		t.Errorf("link 1002 leads to %+v", c)
	}
	v.Board().Publish([]container.Attachment{known})
	await(t, v, "detachment", func(s *container.Snapshot) bool {
		return len(s.Gone) == 1 && s.Gone[0].ID == "bare" && len(s.Gone[0].Attachments) == 1
	})
	must(t)(d.Ctr(t.Context(), "default", "tasks", "rm", "-f", "board-one"))
	must(t)(d.Ctr(t.Context(), "default", "containers", "rm", "board-one"))
	await(t, v, "tombstone with its address", func(s *container.Snapshot) bool {
		for _, g := range s.Gone {
			if g.ID == "board-one" && len(g.Attachments) == 1 && g.Cgroup.Path() == d.Cgroup+"/one" {
				return true
			}
		}
		return false
	})
}
