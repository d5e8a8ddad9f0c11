package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/fairlead-dev/fairlead/overlay/ipam"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// Config is the section "overlay" of the configuration file.
type Config struct {
	Store    string    `yaml:"store" doc:"where hosts and blocks are known from: local (this host alone) or static (the list below)"`
	Peers    []Peer    `yaml:"peers" doc:"static: every host of the overlay, this one too, the same list everywhere"`
	Networks []Network `yaml:"networks" doc:"overlay networks; a CNI conflist chooses one by its name"`
	Port     uint16    `yaml:"port" doc:"UDP port of VXLAN (RFC 7348)"`
}

// Peer is one host of a static overlay.
type Peer struct {
	Name    string         `yaml:"name" doc:"its node.name"`
	Address netip.Addr     `yaml:"address" doc:"its address on the underlay"`
	Blocks  []netip.Prefix `yaml:"blocks" doc:"the address blocks that it gives to its containers"`
}

// Network is one overlay network.
type Network struct {
	Name string       `yaml:"name" doc:"1 to 32 of a-z, 0-9 and -"`
	CIDR netip.Prefix `yaml:"cidr" doc:"addresses of the whole network, all hosts together"`
	VNI  uint32       `yaml:"vni" doc:"VXLAN network identifier, 1 to 16777215"`
	MTU  int          `yaml:"mtu" doc:"bytes; 0: that of the underlay, less 50 for VXLAN when there are peers"`
	Path string       `yaml:"path" doc:"how packets reach a peer: auto or vxlan; auto is vxlan in this version"`
}

// SetDefaults gives a listed network what it does not say.
func (n *Network) SetDefaults() { n.Path = "auto" }

// DefaultConfig is one network on a single host.
func DefaultConfig() Config {
	return Config{
		Store:    "local",
		Port:     4789,
		Networks: []Network{{Name: "fairlead", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42, Path: "auto"}},
	}
}

var networkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Validate names every problem with its key.
func (c Config) Validate() error {
	var problems []error
	problem := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf("overlay.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Store != "local" && c.Store != "static" {
		problem("store", "expected local or static, found %q", c.Store)
	}
	if c.Store == "local" && len(c.Peers) > 0 {
		problem("peers", "store is local, which has no peers; set overlay.store to static")
	}
	if c.Store == "static" && len(c.Peers) == 0 {
		problem("peers", "store is static, but no peer is listed")
	}
	if c.Port == 0 {
		problem("port", "0 is not between 1 and 65535")
	}
	if len(c.Networks) > 1 {
		problem("networks", "%d networks are listed; this version serves one", len(c.Networks))
	}
	for i, n := range c.Networks {
		n.validate(func(key, format string, args ...any) {
			problem(fmt.Sprintf("networks[%d].%s", i, key), format, args...)
		})
	}
	c.validatePeers(problem)
	return errors.Join(problems...)
}

func (n Network) validate(problem func(key, format string, args ...any)) {
	if !networkName.MatchString(n.Name) {
		problem("name", "expected 1 to 32 of a-z, 0-9 and -, found %q", n.Name)
	}
	switch {
	case !n.CIDR.IsValid():
		problem("cidr", "expected an IPv4 prefix such as 10.42.0.0/16")
	case !n.CIDR.Addr().Is4():
		problem("cidr", "%s is not IPv4; this version serves IPv4 only", n.CIDR)
	case n.CIDR != n.CIDR.Masked():
		problem("cidr", "%s has bits set behind its length; did you mean %s?", n.CIDR, n.CIDR.Masked())
	case n.CIDR.Bits() > 29 || n.CIDR.Bits() < 8:
		problem("cidr", "length /%d is not between /8 and /29", n.CIDR.Bits())
	}
	if n.VNI == 0 || n.VNI > 1<<24-1 {
		problem("vni", "%d is not between 1 and 16777215", n.VNI)
	}
	if n.MTU != 0 && (n.MTU < 576 || n.MTU > 65535) {
		problem("mtu", "%d is not 0 or between 576 and 65535", n.MTU)
	}
	if !slices.Contains([]string{"", "auto", "vxlan"}, n.Path) {
		problem("path", "expected auto or vxlan, found %q", n.Path)
	}
}

func (c Config) validatePeers(problem func(key, format string, args ...any)) {
	type held struct {
		by    string
		block netip.Prefix
	}
	var blocks []held
	names, addrs := map[string]int{}, map[netip.Addr]int{}
	for i, p := range c.Peers {
		at := fmt.Sprintf("peers[%d]", i)
		if p.Name == "" {
			problem(at+".name", "expected the peer's node.name")
		} else if j, twice := names[p.Name]; twice {
			problem(at+".name", "%q is peers[%d] already", p.Name, j)
		}
		names[p.Name] = i
		if !p.Address.Is4() {
			problem(at+".address", "expected an IPv4 address of the peer on the underlay")
		} else if j, twice := addrs[p.Address]; twice {
			problem(at+".address", "%s is the address of peers[%d] already", p.Address, j)
		}
		addrs[p.Address] = i
		for k, b := range p.Blocks {
			key := fmt.Sprintf("%s.blocks[%d]", at, k)
			switch {
			case b != b.Masked():
				problem(key, "%s has bits set behind its length; did you mean %s?", b, b.Masked())
			case b.Bits() > 30:
				problem(key, "%s has no address for a container; expected /30 or larger", b)
			case !slices.ContainsFunc(c.Networks, func(n Network) bool {
				return n.CIDR.IsValid() && n.CIDR.Overlaps(b) && n.CIDR.Bits() <= b.Bits()
			}):
				problem(key, "%s is in no network's cidr", b)
			}
			for _, h := range blocks {
				if h.block.Overlaps(b) {
					problem(key, "%s overlaps %s of %s", b, h.block, h.by)
				}
			}
			blocks = append(blocks, held{p.Name, b})
		}
	}
}

func (c Config) newStore(node string) (store.Store, error) {
	if c.Store == "static" {
		return store.NewStatic(node, nodes(c.Peers))
	}
	var cidrs []netip.Prefix
	for _, n := range c.Networks {
		cidrs = append(cidrs, n.CIDR)
	}
	return store.Local(node, cidrs...), nil
}

func nodes(peers []Peer) []store.Node {
	var out []store.Node
	for _, p := range peers {
		out = append(out, store.Node{Name: p.Name, Addr: p.Address, Blocks: p.Blocks})
	}
	return out
}

// vxlanOverhead is what VXLAN over IPv4 adds to a packet: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20 (RFC 7348).
const vxlanOverhead = 50

// networks gives what this host's part in each network is, in a cluster over an underlay with the given MTU.
func (c Config) networks(cl store.Cluster, self plan.VTEP, underlayMTU int) []plan.Network {
	var out []plan.Network
	for _, n := range c.Networks {
		w := plan.Network{Name: n.Name, CIDR: n.CIDR, VNI: n.VNI, Port: c.Port, MTU: n.MTU, Blocks: within(n.CIDR, cl.Self.Blocks)}
		if w.MTU == 0 {
			w.MTU = underlayMTU
		}
		if len(cl.Peers) > 0 && len(w.Blocks) > 0 {
			w.Node = ipam.Node(w.Blocks[0])
			w.Underlay = plan.VTEP{Addr: self.Addr, MAC: plan.VTEPMAC(cl.Self.Name, n.VNI)}
			if n.MTU == 0 {
				w.MTU = underlayMTU - vxlanOverhead
			}
			for _, p := range cl.Peers {
				w.Peers = append(w.Peers, plan.Peer{
					Name: p.Name, VTEP: plan.VTEP{Addr: p.Addr, MAC: plan.VTEPMAC(p.Name, n.VNI)}, Blocks: within(n.CIDR, p.Blocks),
				})
			}
		}
		out = append(out, w)
	}
	return out
}

func within(cidr netip.Prefix, blocks []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, b := range blocks {
		if cidr.Contains(b.Addr()) && cidr.Bits() <= b.Bits() {
			out = append(out, b)
		}
	}
	return out
}
