package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/fairlead-dev/fairlead/overlay/ipam"
	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/overlay/store"
)

// Config is the section "overlay" of the configuration file.
type Config struct {
	Store    string           `yaml:"store" doc:"where hosts and blocks are known from: local (this host alone), static (the list below) or etcd (an existing cluster of it; docs/etcd.md)"`
	Etcd     store.EtcdConfig `yaml:"etcd" doc:"etcd: where it is"`
	Peers    []Peer           `yaml:"peers" doc:"static: every host of the overlay, this one too, the same list everywhere"`
	Networks []Network        `yaml:"networks" doc:"overlay networks; a CNI conflist chooses one by its name; with etcd they are made there unless there is one of that name"`
	Port     uint16           `yaml:"port" doc:"UDP port of VXLAN (RFC 7348)"`
}

// Peer is one host of a static overlay.
type Peer struct {
	Name    string         `yaml:"name" doc:"its node.name"`
	Address netip.Addr     `yaml:"address" doc:"its address on the underlay, IPv4 or IPv6, the same for all"`
	Blocks  []netip.Prefix `yaml:"blocks" doc:"the address blocks that it gives to its containers; a single one (/32, /128) to the container that asks for it"`
}

// Network is one overlay network.
type Network struct {
	Name  string       `yaml:"name" json:"name" doc:"1 to 32 of a-z, 0-9 and -"`
	CIDR  netip.Prefix `yaml:"cidr" json:"cidr" doc:"IPv4 addresses of the whole network, all hosts together"`
	CIDR6 netip.Prefix `yaml:"cidr6" json:"cidr6,omitzero" doc:"IPv6 addresses of the whole network, such as fd42::/48; nothing: IPv4 only"`
	VNI   uint32       `yaml:"vni" json:"vni" doc:"VXLAN network identifier, 1 to 16777215"`
	// Block and Block6 are for stores that lease blocks.
	Block  int `yaml:"block" json:"block,omitempty" doc:"etcd: length of the IPv4 blocks that hosts lease, such as 24; 0: 24, or what gives 16 hosts a block"`
	Block6 int `yaml:"block6" json:"block6,omitempty" doc:"etcd: the same for IPv6; 0: 64, or what gives 256 hosts a block"`
	// Fixed and Fixed6 are for stores that lease single addresses.
	Fixed  FixedRange `yaml:"fixed" json:"fixed,omitzero" doc:"etcd: part of cidr whose addresses are leased one by one, for containers that take theirs from host to host; none; nothing: the last sixteenth of cidr, when that is whole blocks"`
	Fixed6 FixedRange `yaml:"fixed6" json:"fixed6,omitzero" doc:"etcd: the same of cidr6"`
	MTU    int        `yaml:"mtu" json:"mtu,omitempty" doc:"bytes; 0: that of the underlay, less 50 (70 over IPv6) for VXLAN when there are peers"`
	Path   string     `yaml:"path" json:"path,omitempty" doc:"how packets reach a peer: vxlan; auto, plainly as long as probes show that both are on one segment and nothing between filters by source address, else by VXLAN; direct, the same, but plainly at once, before the first probe is answered"`
	Allow  []string   `yaml:"allow" json:"allow,omitempty" doc:"other networks whose containers may talk with this one's, both ways; networks are isolated otherwise"`
	Host   string     `yaml:"host" json:"host,omitempty" doc:"what a container may reach of the host itself: deny (nothing but the inside door) or allow (everything)"`
}

// SetDefaults gives a listed network what it does not say.
func (n *Network) SetDefaults() { n.Path, n.Host = "auto", "deny" }

// DefaultConfig is one network on a single host.
func DefaultConfig() Config {
	return Config{
		Store:    "local",
		Etcd:     store.DefaultEtcdConfig(),
		Port:     4789,
		Networks: []Network{{Name: "fairlead", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42, Path: "auto", Host: "deny"}},
	}
}

var networkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Validate names every problem with its key.
func (c Config) Validate() error {
	var problems []error
	problem := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf("overlay.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if !slices.Contains([]string{"local", "static", "etcd"}, c.Store) {
		problem("store", "expected local, static or etcd, found %q", c.Store)
	}
	if c.Store == "local" && len(c.Peers) > 0 {
		problem("peers", "store is local, which has no peers; set overlay.store to static")
	}
	if c.Store == "etcd" {
		c.Etcd.Validate(func(key, format string, args ...any) { problem("etcd."+key, format, args...) })
		if len(c.Peers) > 0 {
			problem("peers", "store is etcd, where hosts find each other; remove the list")
		}
	}
	if c.Store == "static" && len(c.Peers) == 0 {
		problem("peers", "store is static, but no peer is listed")
	}
	if c.Port == 0 {
		problem("port", "0 is not between 1 and 65535")
	}
	for i, n := range c.Networks {
		at := func(key, format string, args ...any) {
			problem(fmt.Sprintf("networks[%d].%s", i, key), format, args...)
		}
		n.validate(at)
		n.validateBeside(c.Networks[:i], at)
		for _, name := range n.Allow {
			if !slices.ContainsFunc(c.Networks, func(m Network) bool { return m.Name == name && name != n.Name }) {
				at("allow", "there is no other network %q", name)
			}
		}
	}
	c.validatePeers(problem)
	return errors.Join(problems...)
}

func (n Network) validate(problem func(key, format string, args ...any)) {
	if !networkName.MatchString(n.Name) {
		problem("name", "expected 1 to 32 of a-z, 0-9 and -, found %q", n.Name)
	}
	checkCIDR(n.CIDR, "an IPv4 prefix such as 10.42.0.0/16", 8, 29, n.CIDR.Addr().Is4(), func(format string, args ...any) { problem("cidr", format, args...) })
	if n.CIDR6.IsValid() {
		six := n.CIDR6.Addr().Is6() && !n.CIDR6.Addr().Is4In6()
		checkCIDR(n.CIDR6, "an IPv6 prefix such as fd42::/48", 16, 125, six, func(format string, args ...any) { problem("cidr6", format, args...) })
	}
	if n.VNI == 0 || n.VNI > 1<<24-1 {
		problem("vni", "%d is not between 1 and 16777215", n.VNI)
	}
	if n.Block != 0 && (n.Block < n.CIDR.Bits() || n.Block > 29) {
		problem("block", "%d is not 0 or between the cidr's length and 29", n.Block)
	}
	if n.Block6 != 0 && (n.Block6 < n.CIDR6.Bits() || n.Block6 > 125) {
		problem("block6", "%d is not 0 or between cidr6's length and 125", n.Block6)
	}
	four, six := n.blockLengths()
	if fault := n.Fixed.fault(n.CIDR, four); fault != "" {
		problem("fixed", "%s", fault)
	}
	if fault := n.Fixed6.fault(n.CIDR6, six); fault != "" {
		problem("fixed6", "%s", fault)
	}
	least := 576
	if n.CIDR6.IsValid() {
		least = 1280 // RFC 8200, section 5
	}
	if n.MTU != 0 && (n.MTU < least || n.MTU > 65535) {
		problem("mtu", "%d is not 0 or between %d and 65535", n.MTU, least)
	}
	if !slices.Contains([]string{"", "auto", "vxlan", "direct"}, n.Path) {
		problem("path", "expected auto, direct or vxlan, found %q", n.Path)
	}
	if !slices.Contains([]string{"", "deny", "allow"}, n.Host) {
		problem("host", "expected deny or allow, found %q", n.Host)
	}
}

// notForHosts are the blocks of loopback, of one link (where a container's gateway is) and of multicast and beyond.
var notForHosts = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// checkCIDR tells what is wrong with a prefix: one thing at a time.
func checkCIDR(p netip.Prefix, expected string, shortest, longest int, family bool, problem func(format string, args ...any)) {
	switch {
	case !p.IsValid():
		problem("expected %s", expected)
	case !family:
		problem("expected %s, found %s", expected, p)
	case p != p.Masked():
		problem("%s has bits set behind its length; did you mean %s?", p, p.Masked())
	case p.Bits() > longest || p.Bits() < shortest:
		problem("length /%d is not between /%d and /%d", p.Bits(), shortest, longest)
	case slices.ContainsFunc(notForHosts, p.Overlaps):
		problem("%s is not for hosts: it has addresses of loopback, of one link or of multicast", p)
	}
}

// validateBeside names what n would take from others.
func (n Network) validateBeside(others []Network, problem func(key, format string, args ...any)) {
	for _, o := range others {
		if o.Name == n.Name {
			problem("name", "there is a network %q already", n.Name)
		}
		if o.VNI == n.VNI {
			problem("vni", "%d is network %s's", n.VNI, o.Name)
		}
		if o.CIDR.IsValid() && n.CIDR.IsValid() && o.CIDR.Overlaps(n.CIDR) {
			problem("cidr", "%s overlaps %s of network %s", n.CIDR, o.CIDR, o.Name)
		}
		if o.CIDR6.IsValid() && n.CIDR6.IsValid() && o.CIDR6.Overlaps(n.CIDR6) {
			problem("cidr6", "%s overlaps %s of network %s", n.CIDR6, o.CIDR6, o.Name)
		}
	}
}

// cidrs gives the prefixes that n has.
func (n Network) cidrs() []netip.Prefix {
	if n.CIDR6.IsValid() {
		return []netip.Prefix{n.CIDR, n.CIDR6}
	}
	return []netip.Prefix{n.CIDR}
}

func (c Config) validatePeers(problem func(key, format string, args ...any)) {
	names, addrs, blocks := map[string]int{}, map[netip.Addr]int{}, heldBlocks(c.Peers)
	for i, p := range c.Peers {
		at := fmt.Sprintf("peers[%d]", i)
		if p.Name == "" {
			problem(at+".name", "expected the peer's node.name")
		} else if j, twice := names[p.Name]; twice {
			problem(at+".name", "%q is peers[%d] already", p.Name, j)
		}
		names[p.Name] = i
		if !p.Address.IsValid() {
			problem(at+".address", "expected the peer's address on the underlay")
		} else if first := c.Peers[0].Address; first.IsValid() && first.Is4() != p.Address.Is4() {
			problem(at+".address", "%s is not of the IP version of %s, which peers[0] has; a VXLAN has one", p.Address, first)
		} else if j, twice := addrs[p.Address]; twice {
			problem(at+".address", "%s is the address of peers[%d] already", p.Address, j)
		}
		addrs[p.Address] = i
		for k, b := range p.Blocks {
			key := fmt.Sprintf("%s.blocks[%d]", at, k)
			switch {
			case b != b.Masked():
				problem(key, "%s has bits set behind its length; did you mean %s?", b, b.Masked())
			case b.Bits() > b.Addr().BitLen()-2 && !b.IsSingleIP():
				problem(key, "%s has no address for a container; expected /%d or larger, or a single address", b, b.Addr().BitLen()-2)
			case !slices.ContainsFunc(c.Networks, func(n Network) bool { return len(within(n.cidrs(), []netip.Prefix{b})) > 0 }):
				problem(key, "%s is in no network's cidr or cidr6", b)
			}
			if around, by := blocks.around(b, blockAt{i, k}); by != nil {
				problem(key, "%s overlaps %s of %s", b, around, by.Name)
			}
		}
	}
}

func (c Config) newStore(deps Deps) (store.Store, error) {
	switch c.Store {
	case "static":
		return store.NewStatic(deps.NodeName, nodes(c.Peers))
	case "etcd":
		if !store.ValidNodeName(deps.NodeName) {
			return nil, fmt.Errorf("node.name: with the store etcd expected letters, digits, '.', '_' and '-', beginning and ending with a letter or digit, found %q", deps.NodeName)
		}
		return store.NewEtcd(c.Etcd, store.EtcdDeps{Log: deps.Log, Stats: deps.Stats, State: deps.State}), nil
	}
	return store.Local(deps.NodeName), nil
}

func nodes(peers []Peer) []store.Node {
	var out []store.Node
	for _, p := range peers {
		out = append(out, store.Node{Name: p.Name, Addr: p.Address, Blocks: p.Blocks})
	}
	return out
}

// vxlanOverhead is what VXLAN adds to a packet: inner Ethernet 14, VXLAN 8, UDP 8, and 20 of IPv4 or 40 of IPv6 (RFC 7348).
func vxlanOverhead(underlay netip.Addr) int {
	if underlay.Is6() {
		return 70
	}
	return 50
}

// networks gives what this host's part in each of list is, in a cluster over an underlay.
// segment says which peers are on this host's segment, and by which MAC.
func (c Config) networks(list []Network, cl store.Cluster, under kernel.Underlay, segment map[netip.Addr]plan.MAC) []plan.Network {
	var out []plan.Network
	for _, n := range list {
		w := plan.Network{
			Name: n.Name, CIDR: n.CIDR, CIDR6: n.CIDR6, VNI: n.VNI, Port: c.Port, MTU: n.MTU, Allow: n.Allow, Open: n.Host == "allow",
			Blocks: within(n.cidrs(), cl.Self.Blocks),
		}
		if cl.Alone {
			w.Blocks = n.cidrs()
		}
		if w.MTU == 0 {
			w.MTU = under.MTU
		}
		// With a shared store a first peer may come at any time, and nothing here is to change then.
		if (len(cl.Peers) > 0 || cl.Networks != nil) && len(w.Blocks) > 0 {
			w.Node, w.Node6 = nodeOf(w.Blocks)
			w.Underlay = plan.VTEP{Addr: under.Addr, MAC: plan.VTEPMAC(cl.Self.Name, n.VNI)}
			if n.MTU == 0 {
				w.MTU = under.MTU - vxlanOverhead(under.Addr)
			}
			for _, p := range cl.Peers {
				if p.Addr.Is4() != under.Addr.Is4() {
					continue // setCluster tells
				}
				peer := plan.Peer{Name: p.Name, VTEP: plan.VTEP{Addr: p.Addr, MAC: plan.VTEPMAC(p.Name, n.VNI)}, Blocks: within(n.cidrs(), p.Blocks), Lost: within(n.cidrs(), p.Lost)}
				if p.Addr.Is6() {
					peer.VTEP.Inside = hopOf(peer.Blocks)
				}
				if mac, here := segment[p.Addr]; here && n.Path != "vxlan" {
					peer.Near, peer.MAC = under.Dev, mac
				}
				w.Peers = append(w.Peers, peer)
			}
		}
		out = append(out, w)
	}
	return out
}

// nodeOf gives the host's own addresses: of its first block of each family. A single address is a container's.
func nodeOf(blocks []netip.Prefix) (four, six netip.Addr) {
	for _, b := range slices.Backward(blocks) {
		switch {
		case b.IsSingleIP():
		case b.Addr().Is4():
			four = ipam.Node(b)
		default:
			six = ipam.Node(b)
		}
	}
	return four, six
}

// hopOf gives an IPv4 address by which a peer can be spoken of as a next hop: its own, or, when all that it has are
// containers' fixed addresses, one of these.
func hopOf(blocks []netip.Prefix) netip.Addr {
	if own, _ := nodeOf(blocks); own.IsValid() {
		return own
	}
	for _, b := range blocks {
		if b.Addr().Is4() {
			return b.Addr()
		}
	}
	return netip.Addr{}
}

// within gives those of blocks that are part of one of cidrs.
func within(cidrs, blocks []netip.Prefix) []netip.Prefix {
	inside := func(b netip.Prefix) bool {
		return slices.ContainsFunc(cidrs, func(c netip.Prefix) bool { return c.IsValid() && c.Contains(b.Addr()) && c.Bits() <= b.Bits() })
	}
	var out []netip.Prefix
	if len(blocks) > 0 && !slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return !inside(b) }) {
		return blocks[:len(blocks):len(blocks)] // as with most peers: thousands need no copies
	}
	for _, b := range blocks {
		if inside(b) {
			out = append(out, b)
		}
	}
	return out
}
