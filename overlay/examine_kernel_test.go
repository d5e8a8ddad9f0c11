//go:build kernel

package overlay_test

import (
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// check examines the other host.
func (p *pair) check() overlay.PeerCheck {
	p.t.Helper()
	list, err := p.o.CheckPeers(p.t.Context(), "web2")
	if err != nil || len(list) != 1 {
		p.t.Fatalf("check: %v, %+v", err, list)
	}
	return list[0]
}

// finds examines the other host and compares: each finding's parts as "hop | cause | cure"; none: all is well.
func (p *pair) finds(what string, ok bool, want ...string) {
	p.t.Helper()
	c := p.check()
	if c.OK != ok || len(c.Findings) != len(want) {
		p.t.Errorf("%s: %+v", what, c)
		return
	}
	for i, w := range want {
		parts, f := strings.Split(w, " | "), c.Findings[i]
		p.t.Logf("%s: %s: %s; %s", what, f.Hop, f.Cause, f.Cure)
		if f.Hop != parts[0] || !strings.Contains(f.Cause, parts[1]) || !strings.Contains(f.Cure, parts[2]) {
			p.t.Errorf("%s: want %s, got %+v", what, w, f)
		}
	}
}

func TestNetCheckOnASegmentNamesWhatIsWrong(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newPair(t, "auto")
	p.until("direct", p.route, plainly)
	p.until("direct there", p.farRoute, farPlain)
	p.finds("well", true)
	if c := p.check(); c.Path != "direct" || c.RTT == 0 || c.MTU != 1450 {
		t.Errorf("well: %+v", c)
	}
	p.middle(dropVXLAN)
	p.finds("blocked", false, "between this host and web2 | UDP port 4789 is blocked | let UDP port 4789 pass both ways")
	p.middle(`nft flush table bridge fault; ip link set p0 mtu 1400; ip link set p1 mtu 1400`)
	p.finds("narrow", false, "between this host and web2 | packets of more than 135 | carry 1500 bytes",
		"between this host and web2 | packets of more than 140 | carry 1450 bytes")
	p.middle(`ip link set p0 mtu 1500; ip link set p1 mtu 1500`)
	p.dropPlain()
	p.until("fallen back", p.route, viaVXLAN)
	p.until("fallen back there", p.farRoute, viaVXLAN)
	p.finds("filtered", true, "under | direct packets are filtered | set path: vxlan")
	p.middle(`ip link set p1 down`)
	p.sh("ip neigh flush dev under")
	p.finds("dead", false, "under | nobody answers ARP for 192.0.2.12 | start web2")
	if list, err := p.o.CheckPeers(t.Context(), "web9"); err == nil || !strings.Contains(err.Error(), `there are ["web2"]`) {
		t.Errorf("a peer that is not there: %v, %+v", err, list)
	}
}

func TestNetCheckBehindARouterNamesHopAndCause(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newRoutedPair(t, "vxlan")
	p.finds("well", true)
	p.middle(`nft add table ip fault; nft "add chain ip fault f { type filter hook forward priority 0; }"; nft add rule ip fault f udp dport 4789 drop`)
	p.finds("blocked", false, "behind 192.0.2.254 | UDP port 4789 is blocked | let UDP port 4789 pass both ways")
	p.middle(`nft flush table ip fault; nft add rule ip fault f udp dport 4789 reject with icmp admin-prohibited`)
	p.finds("refused", false, "192.0.2.254 | this hop refuses it | let UDP port 4789 pass both ways")
	// As by a network card that writes a wrong checksum into what is inside VXLAN: UDP with the wrong one.
	p.middle(`nft flush table ip fault; nft "add rule ip fault f udp dport 4789 @th,312,8 17 @th,448,16 set 0xdead"`)
	for _, dev := range []string{"under", "fl-vx42"} {
		noChecksumOffload(t, dev)
	}
	p.finds("spoiled", false, "under | echoes pass and UDP does not | ethtool -K under tx-udp_tnl-csum-segmentation off")
	p.middle(`nft flush table ip fault`)
	p.sh("nsenter --net=" + p.far.Path + " ip link set eth0 down")
	p.finds("dead", false, "behind 192.0.2.254 | nothing is answered | ping 198.51.100.12")
	p.sh("ip route del default; ip route del 198.51.100.0/24 2>/dev/null || true")
	p.finds("no route", false, "this host | no route | give this host a route to 198.51.100.12")
}

func TestNetCheckOverIPv6NamesHopAndCause(t *testing.T) {
	if !hosttest.InOwnNetNS(t) {
		return
	}
	p := newRoutedPair6(t)
	p.answered() // neighbour discovery takes a second on links that have just come up
	p.finds("well", true)
	p.middle(`nft add table ip6 fault; nft "add chain ip6 fault f { type filter hook forward priority 0; }"; nft add rule ip6 fault f udp dport 4789 drop`)
	p.finds("blocked", false, "behind 2001:db8:1::fe | UDP port 4789 is blocked | let UDP port 4789 pass both ways")
	p.middle(`nft flush table ip6 fault; nft add rule ip6 fault f udp dport 4789 reject with icmpv6 admin-prohibited`)
	p.finds("refused", false, "2001:db8:1::fe | this hop refuses it | let UDP port 4789 pass both ways")
	p.middle(`nft flush table ip6 fault; ip route add unreachable 2001:db8:2::12`)
	p.finds("no way", false, "2001:db8:1::fe | has no way to 2001:db8:2::12 | start web2")
	p.middle(`ip route del unreachable 2001:db8:2::12; nft add rule ip6 fault f drop`)
	p.finds("dead", false, "behind 2001:db8:1::fe | nothing is answered | ping 2001:db8:2::12")
}

// noChecksumOffload makes the kernel write checksums itself: `ethtool -K DEV tx off`.
func noChecksumOffload(t *testing.T, dev string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], dev)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatalf("turn checksum offload of %s off: %v", dev, errno)
	}
}
