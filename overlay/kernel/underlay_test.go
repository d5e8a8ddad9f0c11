package kernel

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestTheAddressThatOthersAreToKnow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		addrs          map[string]int // flags
		order          []string
		named, gateway string
		want           string
	}{
		{"the first of several", nil, []string{"192.0.2.11/24", "192.0.2.12/24"}, "", "", "192.0.2.11"},
		{"that of the gateway's subnet", nil, []string{"198.51.100.11/24", "192.0.2.11/24"}, "", "192.0.2.1", "192.0.2.11"},
		{"that which the route names", nil, []string{"192.0.2.11/24", "192.0.3.11/24"}, "192.0.3.11", "192.0.2.1", "192.0.3.11"},
		{"the lowest of IPv6, however new", nil, []string{"2001:db8::22/64", "2001:db8::11/64"}, "", "fe80::1", "2001:db8::11"},
		{"none that passes", map[string]int{"2001:db8::1/64": unix.IFA_F_TEMPORARY, "2001:db8::2/64": unix.IFA_F_DEPRECATED, "2001:db8::3/64": unix.IFA_F_TENTATIVE},
			[]string{"2001:db8::1/64", "2001:db8::2/64", "2001:db8::3/64", "2001:db8::4/64", "fe80::4/64"}, "", "", "2001:db8::4"},
		{"nothing but link-local", nil, []string{"fe80::4/64"}, "", "fe80::1", ""},
	} {
		var addrs []netlink.Addr
		for _, text := range c.order {
			a, err := netlink.ParseAddr(text)
			if err != nil {
				t.Fatal(err)
			}
			a.Flags = c.addrs[text]
			addrs = append(addrs, *a)
		}
		parse := func(text string) (a netip.Addr) { a, _ = netip.ParseAddr(text); return a }
		got, ok := sender(addrs, parse(c.named), parse(c.gateway))
		if ok != (c.want != "") || ok && addr(got.IP) != parse(c.want) {
			t.Errorf("%s: got %s, %t", c.name, got.IP, ok)
		}
	}
}
