package main

import (
	"fmt"

	"github.com/fairlead-dev/fairlead/overlay"
)

const netHelp = `fairlead net ls [--json]

Networks of this host: addresses, blocks, and the peers that each reaches. Example:

  fairlead net ls --json`

func runNet(e env, args []string) error {
	f := newFlags(e, "net", netHelp).client()
	if err := f.parse(args, "ls"); err != nil {
		return err
	}
	var networks []overlay.NetworkStatus
	printed, err := f.ask(e, "/v1/networks", &networks)
	if err != nil || printed {
		return err
	}
	var rows, peers [][]string
	for _, n := range networks {
		rows = append(rows, []string{n.Name, n.CIDR.String(), fmt.Sprint(n.VNI), fmt.Sprint(n.MTU), join(n.Blocks), fmt.Sprint(n.Attachments), fmt.Sprint(n.Free), n.Device})
		for _, p := range n.Peers {
			peers = append(peers, []string{n.Name, p.Name, p.Address.String(), join(p.Blocks), p.Path})
		}
	}
	table(e.stdout, "NETWORK CIDR VNI MTU BLOCKS ATTACHED FREE DEVICE", rows)
	if len(peers) > 0 {
		fmt.Fprintln(e.stdout)
		table(e.stdout, "NETWORK PEER ADDRESS BLOCKS PATH", peers)
	}
	return nil
}
