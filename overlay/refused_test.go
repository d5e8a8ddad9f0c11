package overlay

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

func TestANetworkOfAddressesThatNoHostMayHaveIsRefused(t *testing.T) {
	t.Parallel()
	for _, cidr := range []string{"127.0.0.0/8", "169.254.0.0/16", "169.254.77.0/24", "224.0.0.0/8", "fe80::/64", "ff02::/64"} {
		n := Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}
		if p := netip.MustParsePrefix(cidr); p.Addr().Is4() {
			n.CIDR = p
		} else {
			n.CIDR6 = p
		}
		if err := n.beside(nil); err == nil || !strings.Contains(err.Error(), cidr+" is not for hosts") {
			t.Errorf("%s: %v", cidr, err)
		}
	}
}

func TestAPortOnAnIPv6AddressIsRefusedWhereTheNetworkHasNone(t *testing.T) {
	t.Parallel()
	n := plan.Network{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}}
	table := newTable()
	table.serve([]plan.Network{n})
	port := plan.Port{HostIP: netip.MustParseAddr("::1"), HostPort: 8080, ContainerPort: 80, Protocol: plan.TCP}
	_, err := table.take(plan.Attachment{Key: plan.Key{Owner: "c", IfName: "eth0"}, Network: "blue", Ports: []plan.Port{port}})
	if invalid := (*InvalidRequestError)(nil); !errors.As(err, &invalid) {
		t.Errorf("got %v", err)
	}
	if free := table.freeOf("blue"); free != 253 {
		t.Errorf("%d addresses are free, want all 253", free)
	}
}
