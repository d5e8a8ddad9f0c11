package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// hosts installs Fairlead on both hosts and starts the agents.
func (d *Demo) hosts(ctx context.Context) (string, error) {
	took := map[string]time.Duration{}
	for _, n := range d.nodes {
		if err := n.install(); err != nil {
			return "", err
		}
		var err error
		if took[n.Name], err = n.startAgent(ctx); err != nil {
			return "", fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	a, b := d.nodes[0], d.nodes[1]
	return fmt.Sprintf("%s %s, %s %s: containerd, rsyslog and an agent on each (agents ready in %d and %d ms)",
		a.Name, a.Address, b.Name, b.Address, took[a.Name].Milliseconds(), took[b.Name].Milliseconds()), nil
}

// addresses starts two containers on each host and looks at the addresses that their eth0 has.
func (d *Demo) addresses(ctx context.Context) (string, error) {
	var took []string
	err := d.each(func(n *Node) error {
		for _, id := range []string{"a", "b"} {
			c, err := n.start(ctx, id)
			if err != nil {
				return err
			}
			addr, err := netip.ParseAddr(c.Addr)
			if err != nil {
				return err
			}
			if block := netip.MustParsePrefix(n.block); !block.Contains(addr) {
				return fmt.Errorf("%s has %s, which is not in its host's block %s", c, addr, block)
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	seen := map[string]*Container{}
	for _, n := range d.nodes {
		var has []string
		for _, c := range n.containers {
			if other := seen[c.Addr]; other != nil {
				return "", fmt.Errorf("%s and %s have the same address %s", other, c, c.Addr)
			}
			seen[c.Addr] = c
			has = append(has, c.ID+" "+c.Addr)
		}
		took = append(took, n.Name+": "+strings.Join(has, ", "))
	}
	return strings.Join(took, "   ") + "   (by `ctr run --cni`)", nil
}

// removal ends the containers. containerd then calls CNI DEL, after which no link of theirs may be left.
func (d *Demo) removal(ctx context.Context) (string, error) {
	containers := 0
	for _, n := range d.nodes {
		for _, c := range n.containers {
			if err := c.stop(ctx); err != nil {
				return "", err
			}
			containers++
		}
		n.containers = nil
	}
	// Links are deleted in batches, a moment after DEL was answered.
	deadline := time.Now().Add(5 * time.Second)
	for _, n := range d.nodes {
		for {
			left, err := n.containerLinks(ctx)
			if err != nil {
				return "", err
			}
			if len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				return "", fmt.Errorf("%s: links of removed containers are left after 5 s: %s", n.Name, strings.Join(left, ", "))
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	for _, n := range d.nodes {
		if err := n.agent.stop(); err != nil {
			return "", fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return fmt.Sprintf("%d containers ended, CNI DEL by containerd: 0 of their links left; agents obeyed SIGTERM", containers), nil
}

// containerLinks lists the host's veth links but for its own eth0.
func (n *Node) containerLinks(ctx context.Context) ([]string, error) {
	out, err := n.Run(ctx, "ip", "-br", "link", "show", "type", "veth")
	var links []string
	for line := range strings.Lines(out) {
		if name, _, _ := strings.Cut(strings.Fields(line)[0], "@"); name != "eth0" {
			links = append(links, name)
		}
	}
	return links, err
}
