package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// comment marks the rules that we put into chains of others.
const comment = "fairlead"

// LetThrough sees to it that what we forward passes iptables' filter and firewalld: an accept in our own table does not
// overrule a drop in another one (nft(8): every base chain of a hook is traversed). Docker lets the host's rules into
// DOCKER-USER; where that is not, a FORWARD that drops by policy gets them at its head. Our own table still decides who
// may talk to whom. One call runs at a time. It starts processes and gives what it added, as commands; where nobody drops it adds nothing.
func (c *Conn) LetThrough(networks []plan.Network) (added []string, err error) {
	added, err = letThroughIPTables()
	if err != nil {
		return added, err
	}
	more, err := c.letThroughFirewalld(networks)
	return append(added, more...), err
}

func letThroughIPTables() (added []string, err error) {
	for _, proto := range []iptables.Protocol{iptables.ProtocolIPv4, iptables.ProtocolIPv6} {
		ipt, err := filter(proto)
		if err != nil || ipt == nil {
			return added, err
		}
		chain, rules, err := chainToUse(ipt)
		if err != nil {
			return added, fmt.Errorf("look into iptables' filter: %w", err)
		}
		for _, rule := range missing(chain, rules) {
			if err := ipt.Insert("filter", chain, 1, rule...); err != nil {
				return added, fmt.Errorf("let our links through iptables' %s: %w", chain, err)
			}
			added = append(added, fmt.Sprintf("iptables -I %s %s", chain, strings.Join(rule, " ")))
		}
	}
	return added, nil
}

// filter gives iptables, or nil where it is not installed.
func filter(proto iptables.Protocol) (*iptables.IPTables, error) {
	ipt, err := iptables.NewWithProtocol(proto)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	return ipt, err
}

// chainToUse gives the chain that our rules belong into and the rules that it has, or "" when nothing drops what we
// forward.
func chainToUse(ipt *iptables.IPTables) (chain string, rules []string, err error) {
	docker, err := ipt.ChainExists("filter", "DOCKER-USER")
	if err == nil && docker {
		rules, err = ipt.List("filter", "DOCKER-USER")
	}
	if err != nil || docker {
		return "DOCKER-USER", rules, err
	}
	rules, err = ipt.List("filter", "FORWARD")
	if err != nil || !slices.Contains(rules, "-P FORWARD DROP") {
		return "", nil, err
	}
	return "FORWARD", rules, nil
}

// missing gives those of our rules that a chain does not have.
func missing(chain string, have []string) (out [][]string) {
	if chain == "" {
		return nil
	}
	for _, prefix := range []string{plan.LinkPrefix, plan.VXLANPrefix} {
		for _, flag := range []string{"-i", "-o"} {
			rule := []string{flag, prefix + "+", "-m", "comment", "--comment", comment, "-j", "ACCEPT"}
			if !slices.Contains(have, "-A "+chain+" "+strings.Join(rule, " ")) {
				out = append(out, rule)
			}
		}
	}
	return out
}

// DockerPorts lists the ports of the host that Docker leads to its containers by iptables' nat table.
func (c *Conn) DockerPorts() ([]Listener, error) {
	ipt, err := filter(iptables.ProtocolIPv4)
	if err != nil || ipt == nil {
		return nil, err
	}
	there, err := ipt.ChainExists("nat", "DOCKER")
	if err != nil || !there {
		return nil, err
	}
	rules, err := ipt.List("nat", "DOCKER")
	if err != nil {
		return nil, err
	}
	var out []Listener
	for _, r := range rules {
		if l, ok := dockerPort(strings.Fields(r)); ok {
			out = append(out, l)
		}
	}
	return out, nil
}

// dockerPort reads a rule as Docker writes it: -A DOCKER [-d IP/32] ! -i docker0 -p tcp ... --dport 80 -j DNAT --to-destination A:P.
func dockerPort(words []string) (l Listener, ok bool) {
	for i := 0; i+1 < len(words); i++ {
		switch value := words[i+1]; words[i] {
		case "-d":
			if p, err := netip.ParsePrefix(value); err == nil {
				l.HostIP = p.Addr()
			}
		case "-p":
			ok = l.Protocol.UnmarshalText([]byte(value)) == nil
		case "--dport":
			n, err := strconv.ParseUint(value, 10, 16)
			ok, l.HostPort = ok && err == nil, uint16(n)
		case "--to-destination":
			l.Process = "Docker's container " + value
		}
	}
	return l, ok && l.HostPort > 0 && l.Process != ""
}
