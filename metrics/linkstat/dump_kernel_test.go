//go:build kernel

package linkstat

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// counted is what both sources say of the interfaces of the namespace.
type counted struct {
	byIndex map[int]Counters
	byName  map[string]Counters
}

func count(t *testing.T) counted {
	t.Helper()
	c, err := Dial(time.Now().Add(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := counted{map[int]Counters{}, map[string]Counters{}}
	if err := Dump(c, make([]byte, BufferSize), func(i int, c Counters) { out.byIndex[i] = c }); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/thread-self/net/dev")
	if err == nil {
		err = ParseNetDev(text, func(name []byte, c Counters) { out.byName[string(name)] = c })
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheDumpAgreesWithNetDevAndTheMirrorWithTheOtherEnd(t *testing.T) {
	ns := hosttest.NetNS(t)
	err := ns.Run(func() error {
		// Names as long as names can be, to see them cut nowhere.
		here := netlink.NewVeth(netlink.NewLinkAttrs())
		here.Name, here.PeerName = "fairlead-test-a", "fairlead-test-b"
		if err := netlink.LinkAdd(here); err != nil {
			return err
		}
		there, err := netlink.LinkByName(here.PeerName)
		if err != nil {
			return err
		}
		for _, l := range []netlink.Link{here, there} {
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
		}
		addr, err := netlink.ParseAddr("10.99.0.1/24")
		if err != nil {
			return err
		}
		neighbour := &netlink.Neigh{
			LinkIndex: here.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.IPv4(10, 99, 0, 2), HardwareAddr: there.Attrs().HardwareAddr,
		}
		if err := netlink.AddrAdd(here, addr); err != nil {
			return err
		}
		if err := netlink.NeighSet(neighbour); err != nil {
			return err
		}
		conn, err := net.Dial("udp4", "10.99.0.2:9")
		if err != nil {
			return err
		}
		defer conn.Close()
		before := count(t)
		// The kernel drops what is sent before its link watch has seen the carrier.
		for deadline := time.Now().Add(10 * time.Second); before.byIndex[here.Attrs().Index].TxPackets == 0; before = count(t) {
			if time.Now().After(deadline) {
				return errors.New("the link does not come up")
			}
			if _, err := conn.Write([]byte{1}); err != nil {
				return err
			}
		}
		const packets, payload = 100, 1000
		for range packets {
			if _, err := conn.Write(make([]byte, payload)); err != nil {
				return err
			}
		}
		after := count(t)

		a, b := here.Attrs(), there.Attrs()
		sent := after.byIndex[a.Index].TxBytes - before.byIndex[a.Index].TxBytes
		if want := uint64(packets * (payload + 8 + 20 + 14)); sent < want || sent > want+10_000 { // the stack may solicit
			return fmt.Errorf("%d bytes sent, want %d", sent, want)
		}
		if other := after.byIndex[b.Index]; other.RxBytes < sent || other.Mirror().TxBytes != other.RxBytes {
			return fmt.Errorf("the other end received %+v, this end sent %d", other, sent)
		}
		if x, y := after.byIndex[a.Index], after.byIndex[b.Index].Mirror(); x.TxPackets != y.TxPackets || x.TxBytes != y.TxBytes {
			return fmt.Errorf("%+v is not the mirror of %+v", x, y)
		}
		if x, y := after.byIndex[a.Index], after.byName[a.Name]; x.TxBytes > y.TxBytes || y.TxBytes == 0 {
			return fmt.Errorf("dump %+v, net/dev %+v", x, y)
		}
		table, err := os.ReadFile("/proc/thread-self/net/dev_mcast")
		if err != nil {
			return err
		}
		if got := ParseMulticast(table); got[a.Index] != a.Name || got[b.Index] != b.Name {
			return fmt.Errorf("dev_mcast names %v", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
