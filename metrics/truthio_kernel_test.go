//go:build kernel

package metrics

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/metrics/linkstat"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// The two ends of the link between the burner and the test.
var outside, inside = end{"10.99.0.1", "02:00:00:00:00:01"}, end{"10.99.0.2", "02:00:00:00:00:02"}

type end struct{ addr, mac string }

const payload = 1000 // bytes of one datagram

// direct writes "BYTES PATH" past the page cache, a mebibyte at a time.
func direct(arg string) error {
	size, path, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	const page, piece = 4096, 1 << 20
	b := make([]byte, piece+page)
	b = b[page-int(uintptr(unsafe.Pointer(&b[0]))%page):][:piece]
	for i := range b {
		b[i] = byte(i)
	}
	for ; n > 0 && err == nil; n -= piece {
		_, err = f.Write(b)
	}
	return errors.Join(err, f.Close())
}

// link makes the device name the one end of a link whose other end is known without asking for it.
func link(name string, here, there end) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(here.addr + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return err
	}
	mac, err := net.ParseMAC(there.mac)
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(there.addr), HardwareAddr: mac})
}

// send sends n datagrams. Each is 42 bytes longer on the link.
func send(to end, n int) error {
	conn, err := net.Dial("udp4", to.addr+":9")
	if err != nil {
		return err
	}
	defer conn.Close()
	b := make([]byte, payload)
	for range n {
		if _, err := conn.Write(b); err != nil && !errors.Is(err, unix.ECONNREFUSED) { // nobody listens there
			return err
		}
	}
	return nil
}

// connected keeps what connect opens.
var connected []io.Closer

// connect makes n connections over loopback and leaves a datagram waiting.
func connect(n int) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	connected = append(connected, l, u)
	for range n {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		a, err := l.Accept()
		if err != nil {
			return err
		}
		connected = append(connected, c, a)
	}
	_, err = u.WriteTo(make([]byte, payload), u.LocalAddr())
	return err
}

func TestTheSocketsOfAProcessAreInTheVeryNextScrape(t *testing.T) {
	hosttest.Root(t)
	g := newCgroup(t, "sockets")
	p := g.startIn(t, unix.CLONE_NEWNET)
	own, err := host.StatNetNS(fmt.Sprintf("/proc/%d/ns/net", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	c := container.Container{ID: "sockets", Runtime: "containerd", State: container.Running, PID: p.pid, Cgroup: g.member, NetNS: own}
	m, _ := measuring(t, c, "sockets")
	now := func(name, state string) float64 {
		for id, v := range series(t, m, name+"{") {
			if strings.Contains(id, state) {
				n, err := strconv.ParseFloat(v, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		t.Fatalf("no %s %s", name, state)
		return 0
	}
	before := now("container_sockets", "")
	const pairs = 7
	p.do("sockets " + strconv.Itoa(pairs))
	for _, want := range []struct {
		name, state string
		least, most float64
	}{
		{"container_network_tcp_usage_total", `tcp_state="established"`, 2 * pairs, 2 * pairs},
		{"container_network_tcp_usage_total", `tcp_state="listen"`, 1, 1},
		{"container_network_tcp6_usage_total", `tcp_state="listen"`, 0, 0},
		{"container_network_udp_usage_total", `udp_state="listen"`, 1, 1},
		{"container_network_udp_usage_total", `udp_state="rxqueued"`, payload, 10 * payload}, // with the kernel's own part of it
		{"container_sockets", "", before + 2*pairs + 2, before + 2*pairs + 2},
	} {
		if got := now(want.name, want.state); got < want.least || got > want.most {
			t.Errorf("%s %s: %v, want %v to %v", want.name, want.state, got, want.least, want.most)
		}
	}
}

func TestWhatAProcessWroteToADiskIsInTheVeryNextScrape(t *testing.T) {
	g := newCgroup(t, "disk")
	const size = 32 << 20
	device := loop(t, size)
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	switch {
	case g.dirs["blkio"] != "": // it counts only where there is a rule
		g.set(t, "blkio", "blkio.throttle.write_bps_device "+number+" 100000000000")
	case g.dirs["io"] == "":
		t.Skip("this host has neither blkio nor io")
	default:
		if _, err := os.Stat(filepath.Join(g.dirs["io"], "io.stat")); err != nil {
			t.Skipf("the io controller is not given to cgroups: %v", err)
		}
	}
	p := g.start(t)
	m, _ := measuring(t, container.Container{ID: "disk", Runtime: "containerd", State: container.Running, PID: p.pid, Cgroup: g.member})
	now := func(name string) float64 {
		sum := 0.0
		for id, v := range series(t, m, name+"{") {
			if strings.Contains(id, `device="`+device+`"`) {
				n, err := strconv.ParseFloat(v, 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
		return sum
	}
	bytes, writes := now("container_fs_writes_bytes_total"), now("container_fs_writes_total")
	p.do(fmt.Sprintf("direct %d %s", size, device))
	about(t, "bytes written", now("container_fs_writes_bytes_total")-bytes, size, 0.01)
	if done := now("container_fs_writes_total") - writes; done < 1 {
		t.Errorf("%v writes", done)
	}
}

// loop makes a block device of its own.
func loop(t *testing.T, size int64) string {
	t.Helper()
	hosttest.Require(t, "losetup")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v %s", device, err, out)
		}
	})
	return device
}

func TestWhatAProcessSentAndReceivedIsInTheVeryNextScrape(t *testing.T) {
	ns := hosttest.NetNS(t) // what is the host for this test
	g := newCgroup(t, "net")
	p := g.startIn(t, unix.CLONE_NEWNET)
	mac := func(e end) net.HardwareAddr { m, _ := net.ParseMAC(e.mac); return m }
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsPid(p.pid), PeerHardwareAddr: mac(inside)}
	veth.Name, veth.HardwareAddr = "flt"+strconv.Itoa(p.pid), mac(outside)
	if err := ns.Run(func() error {
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return link(veth.Name, outside, inside)
	}); err != nil {
		t.Fatal(err)
	}
	p.do("link")
	own, err := host.StatNetNS(fmt.Sprintf("/proc/%d/ns/net", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	c := container.Container{ID: "net", Runtime: "containerd", State: container.Running, PID: p.pid, Cgroup: g.member, NetNS: own,
		Links: []container.Link{{Index: veth.Attrs().Index, Name: veth.Name}}}
	m, _ := measuring(t, c)
	m.dial = func(deadline time.Time) (conn io.ReadWriteCloser, err error) {
		return conn, errors.Join(ns.Run(func() error { conn, err = linkstat.Dial(deadline); return err }))
	}

	now := func(name string) float64 {
		for id, v := range series(t, m, "container_network_"+name+"_total{") {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || !strings.Contains(id, `interface="eth0"`) {
				t.Fatalf("%s %s: %v", id, v, err)
			}
			return n
		}
		t.Fatalf("no %s", name)
		return 0
	}
	for deadline := time.Now().Add(hosttest.Bound(10 * time.Second)); now("transmit_packets") == 0; time.Sleep(10 * time.Millisecond) {
		if p.do("send 1"); time.Now().After(deadline) {
			t.Fatal("the link does not come up")
		}
	}
	const packets = 5000
	const onLink = packets * (payload + 8 + 20 + 14)
	sent, count := now("transmit_bytes"), now("transmit_packets")
	p.do("send " + strconv.Itoa(packets))
	about(t, "bytes sent", now("transmit_bytes")-sent, onLink, 0.01)
	about(t, "packets sent", now("transmit_packets")-count, packets, 0.01)
	received, count := now("receive_bytes"), now("receive_packets")
	if err := ns.Run(func() error { return send(inside, packets) }); err != nil {
		t.Fatal(err)
	}
	about(t, "bytes received", now("receive_bytes")-received, onLink, 0.01)
	about(t, "packets received", now("receive_packets")-count, packets, 0.01)
}
