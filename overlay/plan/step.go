package plan

import (
	"fmt"
	"strings"
)

// Step is one change of the host. It prints as the command line that it stands for.
type Step interface{ String() string }

// The steps. Adding fails when the object is there, replacing does not, deleting succeeds when it is already gone.
type (
	// AddLink makes a VXLAN device, up.
	AddLink struct{ Link }
	// AddVeth makes a container's link with its other end already in the container's namespace: 1.3 ms, where moving
	// a ready-made link costs 16 ms (the kernel waits for RCU).
	AddVeth struct {
		Link
		Peer    string
		PeerMAC MAC
		NS      Namespace
	}
	// SetLink changes what is not zero of one that is there.
	SetLink struct {
		Name  string
		MTU   int
		Group uint32
		MAC   MAC
		Up    bool
	}
	// RenameLink gives a link its name back, for which it is down a moment and loses its routes and neighbours.
	RenameLink struct{ Name, To string }
	// AwaitUp waits until a link passes packets. The end of a veth that is opened first gets its carrier while it is up
	// already; until the kernel's link watch has seen to that, its queue drops everything (dev_activate, noop_qdisc).
	AwaitUp struct{ Name string }
	// SetAlias writes a link's alias; in the create message the kernel ignores one.
	SetAlias struct{ Name, Alias string }
	// RetireLink puts a link among those that DeleteRetired removes in one message.
	RetireLink struct{ Name string }
	// DeleteRetired removes all retired links: 1.1 ms each in one message, 20 ms each alone.
	DeleteRetired struct{}
	// DeleteLink removes one link.
	DeleteLink struct{ Name string }

	// AddAddr gives a device an address.
	AddAddr struct{ Addr }
	// DeleteAddr takes it away.
	DeleteAddr struct{ Addr }
	// ReplaceRoute writes a route of ours.
	ReplaceRoute struct{ Route }
	// DeleteRoute removes one.
	DeleteRoute struct{ Route }
	// ReplaceNeigh writes a permanent neighbour entry.
	ReplaceNeigh struct{ Neigh }
	// DeleteNeigh removes one.
	DeleteNeigh struct{ Neigh }
	// ReplaceFDB writes a forwarding entry of a VXLAN device.
	ReplaceFDB struct{ FDB }
	// DeleteFDB removes one.
	DeleteFDB struct{ FDB }
	// SetSysctl writes a host-wide setting.
	SetSysctl struct{ Key, Value string }
	// ReplaceTable puts our nftables table in place, in one transaction.
	ReplaceTable struct{ Table }
	// Admit adds elements to the table, in one transaction.
	Admit struct{ Elements }
	// Dismiss removes those that are there.
	Dismiss struct{ Elements }
	// SetLinkSysctl writes a setting of one device, which dies with it; Family is ipv4 or ipv6.
	SetLinkSysctl struct{ Family, Dev, Key, Value string }

	// Inside does steps in a container's namespace.
	Inside struct {
		NS    Namespace
		Steps []Step
	}
)

// Namespace is an open network namespace; FD is valid as long as the attach that it belongs to runs.
type Namespace struct {
	FD   int
	Path string // for people
}

func (s AddLink) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d group %d up type vxlan id %d dstport %d local %s nolearning",
		s.Name, s.MAC, s.MTU, s.Group, s.VXLAN.VNI, s.VXLAN.Port, s.VXLAN.Local)
}

func (s AddVeth) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d group %d up type veth peer name %s address %s mtu %d netns %s",
		s.Name, s.MAC, s.MTU, s.Group, s.Peer, s.PeerMAC, s.MTU, s.NS.Path)
}

func (s SetLink) String() string {
	line := "ip link set " + s.Name
	if s.MTU > 0 {
		line += fmt.Sprintf(" mtu %d", s.MTU)
	}
	if s.Group > 0 {
		line += fmt.Sprintf(" group %d", s.Group)
	}
	if s.MAC != (MAC{}) {
		line += " address " + s.MAC.String()
	}
	if s.Up {
		line += " up"
	}
	return line
}

func (s RenameLink) String() string {
	return fmt.Sprintf("ip link set %s down name %s", s.Name, s.To)
}

func (s AwaitUp) String() string {
	return fmt.Sprintf("until ip link show %s | grep -q 'state UP'; do :; done", s.Name)
}

func (s SetAlias) String() string { return fmt.Sprintf("ip link set %s alias %q", s.Name, s.Alias) }
func (s RetireLink) String() string {
	return fmt.Sprintf("ip link set %s group %d", s.Name, RetiredGroup)
}
func (DeleteRetired) String() string { return fmt.Sprintf("ip link del group %d", RetiredGroup) }
func (s DeleteLink) String() string  { return "ip link del " + s.Name }
func (s AddAddr) String() string     { return fmt.Sprintf("ip addr add %s dev %s", s.Prefix, s.Dev) }
func (s DeleteAddr) String() string  { return fmt.Sprintf("ip addr del %s dev %s", s.Prefix, s.Dev) }
func (s ReplaceRoute) String() string {
	return "ip route replace " + s.Route.String()
}
func (s DeleteRoute) String() string { return "ip route del " + s.Route.String() }
func (s ReplaceNeigh) String() string {
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", s.IP, s.MAC, s.Dev)
}
func (s DeleteNeigh) String() string { return fmt.Sprintf("ip neigh del %s dev %s", s.IP, s.Dev) }
func (s ReplaceFDB) String() string {
	return fmt.Sprintf("bridge fdb replace %s dev %s dst %s self permanent", s.MAC, s.Dev, s.Dst)
}
func (s DeleteFDB) String() string {
	return fmt.Sprintf("bridge fdb del %s dev %s dst %s self", s.MAC, s.Dev, s.Dst)
}
func (s SetSysctl) String() string { return fmt.Sprintf("sysctl -w %s=%s", s.Key, s.Value) }
func (s Admit) String() string     { return s.lines("add") }
func (s Dismiss) String() string   { return s.lines("delete") }
func (s SetLinkSysctl) String() string {
	return fmt.Sprintf("sysctl -w net.%s.conf.%s.%s=%s", s.Family, s.Dev, s.Key, s.Value)
}
func (s ReplaceTable) String() string { return "nft replace " + s.Table.String() }

func (s Inside) String() string {
	var lines []string
	for _, step := range s.Steps {
		lines = append(lines, strings.Replace(step.String(), "ip ", "ip -n "+s.NS.Path+" ", 1))
	}
	return strings.Join(lines, "\n")
}

// Text gives steps as lines.
func Text(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String())
		b.WriteByte('\n')
	}
	return b.String()
}
