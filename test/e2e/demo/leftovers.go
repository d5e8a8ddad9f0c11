package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// nothingLeft compares the machine with what it was before, and looks for anything that carries the demo's mark. The
// kernel takes namespaces and cgroups apart a moment after the last process has gone, so it is given some seconds.
func (d *Demo) nothingLeft(ctx context.Context, before sim.Machine) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		left, err := sim.Left(d.cluster.Mark)
		if err != nil {
			return err
		}
		now, err := sim.Look()
		if err != nil {
			return err
		}
		strays, err := d.strays()
		if err != nil {
			return err
		}
		left = append(append(left, now.Changed(before)...), strays...)
		if len(left) == 0 {
			say("leftovers", "0 namespaces, links, mounts, cgroups, nft tables, processes, files")
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("left behind, or changed on the machine:\n%s", strings.Join(left, "\n"))
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// strays names processes that still are on one of the hosts.
func (d *Demo) strays() (left []string, err error) {
	all, err := host.DefaultRoot().Processes()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		for _, h := range d.cluster.Hosts {
			if h.Owns(p.PID) {
				left = append(left, fmt.Sprintf("process %d %s, in a namespace of %s", p.PID, p.Comm, h.Name))
			}
		}
	}
	return left, nil
}

// lookAround says how to see what KEEP=1 left running.
func (d *Demo) lookAround() {
	n := d.nodes[0]
	bin := filepath.Join(d.bin, "fairlead")
	wd, err := os.Getwd()
	if err == nil {
		if rel, err := filepath.Rel(wd, bin); err == nil && !strings.HasPrefix(rel, "..") {
			bin = rel
		}
	}
	fmt.Printf("\nLeft running. To look around on %s (the other host: %s):\n\n", n.Name, d.nodes[1].Enter())
	for _, line := range []string{
		n.Enter() + "                 # a shell on the host; in it, for example:",
		"  " + bin + " status",
		"  " + bin + " ps",
		"  " + bin + " net ls",
		"  " + bin + " logs ls",
		"  curl --unix-socket /run/fairlead/agent.sock http://agent/v1/status",
		"  curl http://127.0.0.1:9478/metrics",
		"  ctr task ls;  ctr task exec -t --exec-id me a sh",
		"  ip route;  nft list table inet fairlead",
		"",
		"less " + filepath.Join(n.Dir, "agent.log") + "      # what the agent said",
		"make demo-clean                # ends all of it",
	} {
		fmt.Println("  " + line)
	}
}
