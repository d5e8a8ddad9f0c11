package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/overlay"
)

const netHelp = `fairlead net ls | check [PEER] | ports | create NAME | rm NAME | leave | forget-node NAME | take ADDRESS

  ls           networks of this host: addresses, blocks, and the peers that each reaches
  check [PEER] each path to a peer, or to all: what is lost, where, why, and what helps; exit 1 when something is wrong
  ports        who has which port of the host: containers of ours, Docker's, processes
  create NAME  make a network and keep it; containers join it by a conflist with its name. Store etcd: on all hosts
  rm NAME      take it away; refused while containers are on it
  leave        store etcd: give this host's address blocks back, before it is taken out of service
  forget-node NAME  store etcd: give back the blocks of a host that is gone for good; refused while it is alive
  take ADDRESS store etcd: have an address of a fixed range on this host, for the container that will ask for it

Networks are isolated from each other and from the host unless --allow and --host say otherwise. Examples:

  fairlead net create blue --cidr 10.42.0.0/16 --cidr6 fd42::/48 --vni 42 --allow green
  fairlead net check web2
  fairlead net ports
  fairlead net forget-node web7
  fairlead net take 10.42.240.5 --take-over`

func runNet(e env, args []string) error {
	f := newFlags(e, "net", netHelp).client()
	var n overlay.Network
	f.TextVar(&n.CIDR, "cidr", netip.Prefix{}, "create: IPv4 addresses of the network, such as 10.42.0.0/16")
	f.TextVar(&n.CIDR6, "cidr6", netip.Prefix{}, "create: IPv6 addresses, such as fd42::/48; without it IPv4 only")
	f.TextVar(&n.Fixed, "fixed", overlay.FixedRange{}, "create: store etcd: part of cidr whose addresses move between hosts, or none; default: the last sixteenth")
	f.TextVar(&n.Fixed6, "fixed6", overlay.FixedRange{}, "create: the same of cidr6")
	takeOver := f.Bool("take-over", false, "take: from a host that is silent, too")
	vni := f.Uint("vni", 0, "create: VXLAN network identifier, 1 to 16777215")
	f.IntVar(&n.MTU, "mtu", 0, "create: bytes; 0: what the underlay allows")
	f.StringVar(&n.Host, "host", "deny", "create: `deny` or allow containers to reach the host's own services")
	allow := f.String("allow", "", "create: `networks` whose containers may talk with this one's, separated by commas")
	words, err := f.words(args)
	if err != nil {
		return err
	}
	var given []string
	f.Visit(func(g *flag.Flag) { given = append(given, g.Name) })
	if len(words) > 0 && words[0] == "check" {
		return f.netCheck(e, words[1:], given)
	}
	if len(words) == 0 || !slices.Contains([]string{"ls", "ports", "create", "rm", "leave", "forget-node", "take"}, words[0]) {
		return misuse("expected ls, check, ports, create, rm, leave, forget-node or take, see --help")
	}
	named := slices.Contains([]string{"create", "rm", "forget-node", "take"}, words[0])
	if named && len(words) != 2 || !named && len(words) != 1 {
		return misuse("expected `%s`, see --help", map[bool]string{true: words[0] + " NAME", false: words[0]}[named])
	}
	if *takeOver && words[0] != "take" {
		return misuse("--take-over belongs to take, see --help")
	}
	if words[0] != "create" {
		if i := slices.IndexFunc(given, func(g string) bool { return !slices.Contains([]string{"config", "socket", "json", "take-over"}, g) }); i >= 0 {
			return misuse("--%s belongs to create, see --help", given[i])
		}
	}
	switch words[0] {
	case "ls":
		return f.netList(e)
	case "ports":
		return f.netPorts(e)
	case "rm":
		return f.netChange(e, "/v1/networks/remove", overlay.Network{Name: words[1]}, "network "+words[1]+" removed")
	case "leave":
		return f.netChange(e, "/v1/networks/leave", overlay.Network{}, "this host has left; it joins again when its agent starts")
	case "forget-node":
		return f.netChange(e, "/v1/networks/forget-node", overlay.Network{Name: words[1]}, "node "+words[1]+" forgotten")
	}
	if words[0] == "take" {
		return f.netTake(e, words[1], *takeOver)
	}
	n.Name, n.VNI = words[1], uint32(min(*vni, 1<<24))
	if *allow != "" {
		n.Allow = strings.Split(*allow, ",")
	}
	return f.netChange(e, "/v1/networks", n, "network "+n.Name+" created")
}

func (f *flags) netChange(e env, path string, n overlay.Network, done string) error {
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.Post(ctx, path, n, nil); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, done)
	return nil
}

func (f *flags) netList(e env) error {
	var networks []overlay.NetworkStatus
	printed, err := f.ask(e, "/v1/networks", &networks)
	if err != nil || printed {
		return err
	}
	var rows, peers [][]string
	for _, n := range networks {
		cidr := n.CIDR.String()
		if n.CIDR6.IsValid() {
			cidr += "," + n.CIDR6.String()
		}
		rows = append(rows, []string{
			n.Name, cidr, fmt.Sprint(n.VNI), fmt.Sprint(n.MTU), blocksAndAddresses(n.Blocks), fmt.Sprint(n.Attachments), fmt.Sprint(n.Free), n.Device, strings.Join(n.Allow, ","), n.Host,
		})
		for _, p := range n.Peers {
			state := ""
			if p.Silent {
				state = "silent"
			}
			if p.Problem != "" {
				state = p.Problem
			}
			peers = append(peers, []string{n.Name, p.Name, p.Address.String(), blocksAndAddresses(p.Blocks), p.Path, state})
		}
	}
	table(e.stdout, "NETWORK CIDR VNI MTU BLOCKS ATTACHED FREE DEVICE ALLOW HOST", rows)
	if len(peers) > 0 {
		fmt.Fprintln(e.stdout)
		table(e.stdout, "NETWORK PEER ADDRESS BLOCKS PATH STATE", peers)
	}
	for _, n := range networks {
		if len(n.Fenced) > 0 {
			fmt.Fprintf(e.stdout, "\nnetwork %s: other hosts have the addresses of these containers now; start them anew: %s\n", n.Name, strings.Join(n.Fenced, ", "))
		}
		if n.Fault != "" {
			fmt.Fprintf(e.stdout, "\nnetwork %s is not served: %s\n", n.Name, n.Fault)
		}
	}
	return nil
}

func (f *flags) netPorts(e env) error {
	var ports []overlay.HostPort
	printed, err := f.ask(e, "/v1/networks/ports", &ports)
	if err != nil || printed {
		return err
	}
	var rows [][]string
	for _, p := range ports {
		on, to := "all", ""
		if p.HostIP.IsValid() {
			on = p.HostIP.String()
		}
		if len(p.Addrs) > 0 {
			to = fmt.Sprintf("%s:%d", p.Addrs[0], p.ContainerPort)
		}
		rows = append(rows, []string{fmt.Sprintf("%d/%s", p.Port.HostPort, p.Protocol), on, p.Holder, p.Network, to})
	}
	table(e.stdout, "PORT ADDRESS HOLDER NETWORK TO", rows)
	return nil
}
