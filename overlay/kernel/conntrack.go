package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Attributes and flags of ctnetlink: linux/netfilter/nfnetlink_conntrack.h, and for the filter's flags the kernel's
// net/netfilter/nf_internals.h.
const (
	ctSubsystem = 1
	ctGet       = ctSubsystem<<8 | 1
	ctDelete    = ctSubsystem<<8 | 2

	ctTupleOrig, ctTupleReply, ctFilter     = 1, 2, 25
	ctTupleIP, ctTupleProto                 = 1, 2
	ctSrc4, ctDst4, ctSrc6, ctDst6          = 1, 2, 3, 4
	ctProtoNum, ctProtoSrcPort, ctProtoPort = 1, 2, 3
	ctFilterOrig, ctFilterReply             = 1, 2

	ctBySrc, ctByDst, ctByProto, ctByDstPort = 1 << 0, 1 << 1, 1 << 3, 1 << 5
)

// forgetFlows removes the entries that any of flows means. The kernel does the filtering, so that thousands of foreign
// entries cost a walk and no copy: since Linux 6.11 in the message that deletes, before that in the dump (5.8).
func forgetFlows(flows []plan.Flow) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, f := range flows {
		filter, err := flowFilter(f)
		if err != nil {
			return err
		}
		_, err = conn.Execute(ctMessage(ctDelete, netlink.Acknowledge, f.V6, filter))
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) { // before 6.11 half a tuple is no argument
			err = forgetEach(conn, f, filter)
		}
		if gone(err) != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

func ctMessage(typ netlink.HeaderType, flags netlink.HeaderFlags, v6 bool, attributes []byte) netlink.Message {
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	return netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...), // struct nfgenmsg
	}
}

func flowFilter(f plan.Flow) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	var orig, reply uint32
	ae.Nested(ctTupleOrig, func(t *netlink.AttributeEncoder) error {
		t.Nested(ctTupleIP, func(ip *netlink.AttributeEncoder) error {
			orig |= putAddr(ip, f.Src, ctSrc4, ctSrc6, ctBySrc)
			orig |= putAddr(ip, f.Dst, ctDst4, ctDst6, ctByDst)
			return nil
		})
		if f.Protocol != 0 {
			orig |= ctByProto | ctByDstPort
			t.Nested(ctTupleProto, func(p *netlink.AttributeEncoder) error {
				p.Uint8(ctProtoNum, uint8(f.Protocol))
				p.Uint16(ctProtoSrcPort, 0)
				p.Uint16(ctProtoPort, f.DstPort)
				return nil
			})
		}
		return nil
	})
	ae.Nested(ctTupleReply, func(t *netlink.AttributeEncoder) error {
		t.Nested(ctTupleIP, func(ip *netlink.AttributeEncoder) error {
			reply |= putAddr(ip, f.From, ctSrc4, ctSrc6, ctBySrc)
			return nil
		})
		return nil
	})
	ae.Nested(ctFilter, func(t *netlink.AttributeEncoder) error {
		t.ByteOrder = binary.NativeEndian
		t.Uint32(ctFilterOrig, orig)
		t.Uint32(ctFilterReply, reply)
		return nil
	})
	return ae.Encode()
}

func putAddr(ae *netlink.AttributeEncoder, a netip.Addr, four, six uint16, flag uint32) uint32 {
	switch {
	case !a.IsValid():
		return 0
	case a.Is4():
		ae.Bytes(four, a.AsSlice())
	default:
		ae.Bytes(six, a.AsSlice())
	}
	return flag
}

// forgetEach dumps what the filter lets through and deletes it entry by entry.
func forgetEach(conn *netlink.Conn, f plan.Flow, filter []byte) error {
	entries, err := conn.Execute(ctMessage(ctGet, netlink.Dump, f.V6, filter))
	if err != nil {
		return err
	}
	for _, e := range entries {
		tuple, err := origTuple(e.Data)
		if err != nil {
			return err
		}
		if _, err := conn.Execute(ctMessage(ctDelete, netlink.Acknowledge, f.V6, tuple)); gone(err) != nil {
			return err
		}
	}
	return nil
}

// origTuple gives the attribute by which an entry is named.
func origTuple(entry []byte) ([]byte, error) {
	if len(entry) < 4 {
		return nil, errors.New("conntrack entry is cut short")
	}
	list, err := netlink.UnmarshalAttributes(entry[4:])
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(a netlink.Attribute) bool { return a.Type&^unix.NLA_F_NESTED == ctTupleOrig })
	if i < 0 {
		return nil, errors.New("conntrack entry has no tuple")
	}
	return netlink.MarshalAttributes([]netlink.Attribute{{Type: ctTupleOrig | unix.NLA_F_NESTED, Data: list[i].Data}})
}
