package linkstat

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

// message builds an RTM_NEWSTATS message of the link index whose eight first counters are from, from+1, ...
func message(index int, from uint64) []byte {
	b := make([]byte, sizeofStatsMsg+unix.SizeofNlAttr+25*8)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint16(b[12:], uint16(unix.SizeofNlAttr+25*8))
	binary.NativeEndian.PutUint16(b[14:], attrLink64)
	for i := range uint64(8) {
		binary.NativeEndian.PutUint64(b[16+8*i:], from+i)
	}
	return b
}

func TestDumpAsksOnceAndVisitsEveryLink(t *testing.T) {
	t.Parallel()
	asked := 0
	c := nltest.Dial(func(req []netlink.Message) ([]netlink.Message, error) {
		if len(req) == 0 { // the end of a multi-part answer
			return nil, nil
		}
		asked++
		if h := req[0].Header; h.Type != unix.RTM_GETSTATS || h.Flags != netlink.Request|netlink.Dump {
			t.Errorf("asked with %+v", h)
		}
		if want := append(make([]byte, 8), 1, 0, 0, 0); !cmp.Equal(req[0].Data, want) {
			t.Errorf("asked for %v", req[0].Data)
		}
		h := netlink.Header{Type: unix.RTM_NEWSTATS, Sequence: req[0].Header.Sequence}
		return []netlink.Message{{Header: h, Data: message(3, 10)}, {Header: h, Data: []byte{1, 2}}, {Header: h, Data: message(7, 100)}}, nil
	})
	defer c.Close()
	got := map[int]Counters{}
	if err := Dump(c, func(i int, c Counters) { got[i] = c }); err != nil {
		t.Fatal(err)
	}
	want := map[int]Counters{
		3: {RxPackets: 10, TxPackets: 11, RxBytes: 12, TxBytes: 13, RxErrors: 14, TxErrors: 15, RxDropped: 16, TxDropped: 17},
		7: {RxPackets: 100, TxPackets: 101, RxBytes: 102, TxBytes: 103, RxErrors: 104, TxErrors: 105, RxDropped: 106, TxDropped: 107},
	}
	if diff := cmp.Diff(want, got); diff != "" || asked != 1 {
		t.Errorf("asked %d times: %s", asked, diff)
	}
}

func TestMirrorSwapsTheDirections(t *testing.T) {
	t.Parallel()
	c := Counters{1, 2, 3, 4, 5, 6, 7, 8}
	if got, want := c.Mirror(), (Counters{5, 6, 7, 8, 1, 2, 3, 4}); got != want || got.Mirror() != c {
		t.Errorf("got %+v", got)
	}
}

const netdev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0: 1234567    1001    1    2    0     0          0         0  7654321    2002    3    4    0     0       0          0
tap0:99 1 0 0 0 0 0 0 98 1 0 0 0 0 0 0
`

func TestNetDevIsReadWithoutLoopback(t *testing.T) {
	t.Parallel()
	got := map[string]Counters{}
	if err := ParseNetDev([]byte(netdev), func(name []byte, c Counters) { got[string(name)] = c }); err != nil {
		t.Fatal(err)
	}
	want := map[string]Counters{
		"eth0": {1234567, 1001, 1, 2, 7654321, 2002, 3, 4},
		"tap0": {RxBytes: 99, RxPackets: 1, TxBytes: 98, TxPackets: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "x", netdev + "eth1: 1 2 3\n", strings.Replace(netdev, "7654321", "-1", 1)} {
		if err := ParseNetDev([]byte(bad), func([]byte, Counters) {}); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestMulticastTableNamesInterfacesByIndex(t *testing.T) {
	t.Parallel()
	got := ParseMulticast([]byte("2    eth0            1     0     01005e000001\n2    eth0            1     0     333300000001\n14   net1            1     0     01005e000001\nx y\n-1 z\n"))
	if diff := cmp.Diff(map[int]string{2: "eth0", 14: "net1"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzForeignBytesNeverPanic(f *testing.F) {
	f.Add([]byte(netdev))
	f.Add(message(5, 1))
	f.Add([]byte("2 eth0 1 0 01\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = ParseNetDev(b, func(name []byte, _ Counters) {
			if len(name) == 0 {
				t.Error("an interface without a name")
			}
		})
		for i := range ParseMulticast(b) {
			if i <= 0 {
				t.Errorf("index %d", i)
			}
		}
		parseStats(b)
	})
}
