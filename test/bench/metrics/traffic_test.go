//go:build kernel

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// What crosses each link, of other number and size in each direction, so that no counter can be taken for another's. The
// refused are larger than what the other end takes: the kernel counts them as dropped at both.
const (
	toContainer, fromContainer               = 230, 110
	toContainerSize, fromContainerSize       = 500, 1000
	toContainerRefused, fromContainerRefused = 5, 7
)

// traffic sends it over each container's eth0, and over a second link of the first container, which has another name than
// every other.
func traffic(t *testing.T, w *world) {
	t.Helper()
	pids, err := w.pids(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := pids[w.ids[0]]
	more := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("flc%d", first)}, PeerName: "data0", PeerNamespace: netlink.NsPid(first)}
	if err := netlink.LinkAdd(more); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		exchange(t, pid, hostEnd(pid), "eth0")
	}
	exchange(t, first, more.Name, "data0")
}

// exchange sends the traffic of the link whose ends are called outer here and inner in the network namespace of pid.
func exchange(t *testing.T, pid int, outer, inner string) {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	container := &hosttest.NetNamespace{File: file}
	here := func(f func() error) error { return f() }
	const large, refused = 9000, 4000
	for _, do := range []struct {
		in   func(func() error) error
		what func() error
	}{
		{container.Run, up(inner)}, {here, up(outer)}, {container.Run, waitUp(inner)},
		{here, send(outer, toContainer, toContainerSize)}, {container.Run, send(inner, fromContainer, fromContainerSize)},
		{container.Run, mtu(inner, large)}, {container.Run, send(inner, fromContainerRefused, refused)}, {container.Run, mtu(inner, 1500)},
		{here, mtu(outer, large)}, {here, send(outer, toContainerRefused, refused)},
	} {
		if err := do.in(do.what); err != nil {
			t.Fatalf("%s of %d: %v", inner, pid, err)
		}
	}
}

func up(name string) func() error {
	return func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}
}

// waitUp waits until the kernel lets frames pass; before that it drops them without a count.
func waitUp(name string) func() error {
	return func() error {
		for deadline := time.Now().Add(hosttest.Bound(10 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
			l, err := netlink.LinkByName(name)
			if err != nil || l.Attrs().OperState == netlink.OperUp {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is still %s", name, l.Attrs().OperState)
			}
		}
	}
}

func mtu(name string, n int) func() error {
	return func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, n)
	}
}

// send sends n frames of that size. They claim to be IPv4, which every host takes in before it finds that they are not: a
// protocol that nobody wants would be dropped behind the link, where only its own end counts it.
func send(name string, n, size int) func() error {
	return func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := make([]byte, size)
		copy(frame, bytes.Repeat([]byte{0xff}, 6)) // to everybody
		copy(frame[6:], l.Attrs().HardwareAddr)
		copy(frame[12:], []byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
		to := &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: unix.ETH_P_IP >> 8}
		for range n {
			if err := unix.Sendto(fd, frame, 0, to); err != nil && err != unix.ENOBUFS { // what is refused
				return fmt.Errorf("send on %s: %w", name, err)
			}
		}
		return nil
	}
}

// trafficShown looks whether the traffic is in the page that ours is compared with. The kernels send a little of their own.
func trafficShown(t *testing.T, w *world, page page) {
	t.Helper()
	const own = 60
	for name, want := range map[string]struct{ least, most float64 }{
		"receive_packets_total":          {toContainer, toContainer + own},
		"transmit_packets_total":         {fromContainer, fromContainer + own},
		"receive_bytes_total":            {toContainer * toContainerSize, toContainer*toContainerSize + own*100},
		"transmit_bytes_total":           {fromContainer * fromContainerSize, fromContainer*fromContainerSize + own*100},
		"receive_packets_dropped_total":  {toContainerRefused, toContainerRefused},
		"transmit_packets_dropped_total": {fromContainerRefused, fromContainerRefused},
	} {
		links := map[string]int{}
		for id, v := range page {
			if !strings.HasPrefix(id, "container_network_"+name+"{") || !w.concerns(id) {
				continue
			}
			_, rest, _ := strings.Cut(id, `interface="`)
			label, _, _ := strings.Cut(rest, `"`)
			links[label]++
			if v < want.least || v > want.most {
				t.Errorf("%s: %v, want %v to %v", id, v, want.least, want.most)
			}
		}
		if links["eth0"] != len(w.ids) || links["data0"] != 1 {
			t.Errorf("cadvisor shows %s of %v", name, links)
		}
	}
}
