package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// implied is what n's kernel should have, as lines, and what it may have besides: a peer that was found on the segment
// may send plainly before and after this host does.
func (n *Node) implied(members []*Node) (want, may map[string]bool) {
	want, may = map[string]bool{}, map[string]bool{}
	add := func(format string, args ...any) { want[fmt.Sprintf(format, args...)] = true }
	for _, b := range n.Boxes {
		add("route %s dev flc", b.Addr)
		add("neigh %s dev flc", b.Addr)
	}
	for _, w := range n.has {
		add("route unreachable %s", w.CIDR)
		if w.Device == "" {
			continue // without a block it takes no part
		}
		for _, p := range members {
			if p == n {
				continue
			}
			mac := plan.VTEPMAC(p.Called, w.VNI)
			add("fdb %s dev %s dst %s", mac, w.Device, p.Addr)
			add("vtep %s", p.Addr)
			for _, block := range p.Blocks(w.Name) {
				dev, b := w.Device, shown(block)
				may[fmt.Sprintf("direct %s %s", mac, b)] = true
				if w.direct(p.Called) {
					dev = "eth0"
					add("direct %s %s", mac, b)
				}
				add("route %s via %s dev %s", b, p.Addr, dev)
				add("neigh %s dev %s %s", p.Addr, w.Device, mac)
			}
		}
	}
	return want, may
}

// shown is a block as ip and nft print it.
func shown(b netip.Prefix) string {
	if b.IsSingleIP() {
		return b.Addr().String()
	}
	return b.String()
}

func (w Network) direct(peer string) bool {
	for _, p := range w.Peers {
		if p.Name == peer {
			return p.Path == "direct"
		}
	}
	return false
}

// look prints all of the overlay that has to do with other hosts, and containers' own routes.
const look = `ip route show proto 94 | sed 's/^/route /'
ip neigh show nud permanent | sed 's/^/neigh /'
bridge fdb show | sed -n 's/^\(.* dst .*\)/fdb \1/p'
nft list table inet fairlead | sed -n '/set vteps/,/}/p' | grep -o '[0-9.]*\.[0-9]*' | sed 's/^/vtep /'
nft list set inet fairlead direct | grep -o '02:fa:[0-9a-f:]* \. [0-9./]*' | sed 's/^/direct /; s/ \. / /'
`

var (
	routeLine = regexp.MustCompile(`^route (unreachable )?(\S+)(?: via (\S+))?(?: dev (\S+))?`)
	neighLine = regexp.MustCompile(`^neigh (\S+) dev (flc|fl-vx\d+)\S* lladdr (\S+)`)
	fdbLine   = regexp.MustCompile(`^fdb (\S+) dev (fl-vx\S+) .*dst (\S+)`)
)

// kernel is what n's kernel has, in the same words as implied.
func (n *Node) kernel(ctx context.Context) (map[string]bool, error) {
	out, err := n.Sh(ctx, "{ "+look+"} 2>/dev/null || :") // without a table, say
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if m := routeLine.FindStringSubmatch(line); m != nil {
			switch {
			case m[1] != "":
				line = "route unreachable " + m[2]
			case m[3] != "":
				line = fmt.Sprintf("route %s via %s dev %s", m[2], m[3], m[4])
			default:
				dev := m[4]
				if strings.HasPrefix(dev, plan.LinkPrefix) {
					dev = plan.LinkPrefix
				}
				line = "route " + m[2] + " dev " + dev
			}
		} else if m := neighLine.FindStringSubmatch(line); m != nil {
			if line = fmt.Sprintf("neigh %s dev %s", m[1], m[2]); m[2] != plan.LinkPrefix {
				line += " " + m[3]
			}
		} else if m := fdbLine.FindStringSubmatch(line); m != nil {
			line = fmt.Sprintf("fdb %s dev %s dst %s", m[1], m[2], m[3])
		} else if !strings.HasPrefix(line, "vtep ") && !strings.HasPrefix(line, "direct ") {
			continue // of devices that are not ours
		}
		have[line] = true
	}
	return have, nil
}
