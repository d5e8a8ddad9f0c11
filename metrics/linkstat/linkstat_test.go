package linkstat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// dialogue is a route netlink socket: what was asked, and what is answered, piece by piece.
type dialogue struct {
	asked  []byte
	pieces [][]byte
}

func (d *dialogue) Write(b []byte) (int, error) {
	d.asked = append(d.asked, b...)
	return len(b), nil
}

func (d *dialogue) Read(b []byte) (int, error) {
	if len(d.pieces) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, d.pieces[0])
	d.pieces = d.pieces[1:]
	return n, nil
}

// answer puts a netlink header before data.
func answer(kind uint16, sequence uint32, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(append(b, 0, 0, 0, 0), data...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestDumpAsksOnceAndVisitsEveryLink(t *testing.T) {
	t.Parallel()
	d := &dialogue{pieces: [][]byte{
		slices.Concat(answer(unix.RTM_NEWSTATS, 1, message(3, 10)), answer(unix.RTM_NEWSTATS, 1, []byte{1, 2}), answer(unix.RTM_NEWSTATS, 9, message(4, 1))),
		answer(unix.RTM_NEWLINK, 1, message(5, 1)),
		slices.Concat(answer(unix.RTM_NEWSTATS, 1, message(7, 100)), answer(unix.NLMSG_DONE, 1, make([]byte, 4)), answer(unix.RTM_NEWSTATS, 1, message(8, 1))),
	}}
	got := map[int]Counters{}
	if err := Dump(d, make([]byte, BufferSize), func(i int, c Counters) { got[i] = c }); err != nil {
		t.Fatal(err)
	}
	want := map[int]Counters{
		3: {RxPackets: 10, TxPackets: 11, RxBytes: 12, TxBytes: 13, RxErrors: 14, TxErrors: 15, RxDropped: 16, TxDropped: 17},
		7: {RxPackets: 100, TxPackets: 101, RxBytes: 102, TxBytes: 103, RxErrors: 104, TxErrors: 105, RxDropped: 106, TxDropped: 107},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	ask := answer(unix.RTM_GETSTATS, 1, append(make([]byte, 8), 1, 0, 0, 0))
	binary.NativeEndian.PutUint16(ask[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if !bytes.Equal(d.asked, ask) {
		t.Errorf("asked %v, want %v", d.asked, ask)
	}
}

func TestDumpSaysWhatWentWrong(t *testing.T) {
	t.Parallel()
	refused := binary.NativeEndian.AppendUint32(nil, ^uint32(unix.EPERM)+1)
	for _, c := range []struct {
		pieces [][]byte
		want   error
	}{
		{nil, os.ErrDeadlineExceeded},
		{[][]byte{{}}, io.ErrUnexpectedEOF},
		{[][]byte{answer(unix.NLMSG_ERROR, 1, refused)}, unix.EPERM},
		{[][]byte{answer(unix.NLMSG_DONE, 1, refused)}, unix.EPERM},
		{[][]byte{answer(unix.RTM_NEWSTATS, 1, message(3, 10))[:100]}, nil},
	} {
		err := Dump(&dialogue{pieces: c.pieces}, make([]byte, BufferSize), func(int, Counters) { t.Error("a link") })
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), "dump link statistics: ") {
			t.Errorf("%v, want %v", err, c.want)
		}
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
	f.Add(answer(unix.RTM_NEWSTATS, 1, message(5, 1)))
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
		_, _ = messages(b, 1, func(int, Counters) {})
	})
}
