package kernel

import (
	"bytes"
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
	ctStatus, ctStatusMask                  = 3, 26
	ctTupleIP, ctTupleProto                 = 1, 2
	ctSrc4, ctDst4, ctSrc6, ctDst6          = 1, 2, 3, 4
	ctProtoNum, ctProtoSrcPort, ctProtoPort = 1, 2, 3
	ctFilterOrig, ctFilterReply             = 1, 2

	ctBySrc, ctByDst, ctByProto, ctByDstPort = 1 << 0, 1 << 1, 1 << 3, 1 << 5
)

// forgetFlows removes the entries that any of flows means. The kernel does the filtering, so that thousands of foreign
// entries cost a walk and no copy: since Linux 6.11 in the message that deletes, before that in the dump (5.8).
func forgetFlows(flows []plan.Flow) error {
	if len(flows) == 0 {
		return nil
	}
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer s.close()
	filters := make([][]byte, len(flows))
	messages := make([]message, len(flows))
	for i, f := range flows {
		if filters[i], err = flowFilter(f); err != nil {
			return err
		}
		messages[i] = ctMessage(ctDelete, f.V6, filters[i])
	}
	faults, _, err := s.do(messages)
	if err != nil {
		return err
	}
	for i, fault := range faults {
		if errors.Is(fault, unix.EOPNOTSUPP) || errors.Is(fault, unix.EINVAL) { // before 6.11 half a tuple is no argument
			fault = forgetEach(s, flows[i], filters[i])
		}
		if gone(fault) != nil {
			return fmt.Errorf("%s: %w", flows[i], fault)
		}
	}
	return nil
}

func ctMessage(typ uint16, v6 bool, attributes []byte) message {
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	return message{typ: typ, body: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...)} // struct nfgenmsg
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
	if f.DstPort != 0 && !f.Dst.IsValid() {
		// A port of the host is meant, and no filter says "an address of the host". What containers say to such a port
		// elsewhere is masqueraded, and would be another connection if it were forgotten; what is masqueraded behind a
		// host port is forgotten with its container.
		ae.Uint32(ctStatus, 0)
		ae.Uint32(ctStatusMask, statusSNAT)
	}
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
func forgetEach(s *socket, f plan.Flow, filter []byte) error {
	var entries [][]byte
	ask := ctMessage(ctGet, f.V6, filter)
	ask.asks = true
	if err := s.dump(ask, func(entry []byte) { entries = append(entries, bytes.Clone(entry)) }); err != nil {
		return err
	}
	for _, e := range entries {
		tuple, err := origTuple(e)
		if err != nil {
			return err
		}
		faults, _, err := s.do([]message{ctMessage(ctDelete, f.V6, tuple)})
		if err == nil {
			err = gone(faults[0])
		}
		if err != nil {
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
