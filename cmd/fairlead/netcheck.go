package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/overlay"
)

// peerRequest asks for one peer, or, without a name, for all.
type peerRequest struct {
	Peer string `json:"peer"`
}

func netCheckRoute(s *api.Server, o *overlay.Overlay) {
	s.HandleStream("POST /v1/networks/check", func(r *http.Request, _ func(any)) (any, error) {
		var q peerRequest
		if err := api.Body(r, &q); err != nil {
			return nil, err
		}
		return o.CheckPeers(r.Context(), q.Peer)
	})
}

// netCheck examines the paths to one peer, or to all.
func (f *flags) netCheck(e env, words, given []string) error {
	if len(words) > 1 {
		return misuse("expected `check` or `check PEER`, see --help")
	}
	if i := slices.IndexFunc(given, func(g string) bool { return !slices.Contains([]string{"config", "socket", "json"}, g) }); i >= 0 {
		return misuse("--%s does not belong to check, see --help", given[i])
	}
	var q peerRequest
	if len(words) == 1 {
		q.Peer = words[0]
	}
	c, err := f.dial()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var checks []overlay.PeerCheck
	if err := c.Stream(ctx, "/v1/networks/check", q, &checks, nil); err != nil {
		return err
	}
	if *f.json {
		if err := printJSON(e.stdout, checks); err != nil {
			return err
		}
	} else {
		printChecks(e, checks)
	}
	for _, c := range checks {
		if !c.OK {
			return errUnwell
		}
	}
	return nil
}

func printChecks(e env, checks []overlay.PeerCheck) {
	if len(checks) == 0 {
		fmt.Fprintln(e.stdout, "no peers: a single host, or one that is alone so far")
		return
	}
	var rows [][]string
	for _, c := range checks {
		rtt, mtu, state := "", "", "ok"
		if c.RTT > 0 {
			rtt = fmt.Sprintf("%.2fms", c.RTT*1e3)
		}
		if c.MTU > 0 {
			mtu = fmt.Sprint(c.MTU)
		}
		if !c.OK {
			state = "PROBLEM"
		}
		rows = append(rows, []string{c.Peer, c.Address.String(), c.Path, rtt, mtu, state})
	}
	table(e.stdout, "PEER ADDRESS PATH RTT MTU STATE", rows)
	for _, c := range checks {
		for _, x := range c.Findings {
			mark := "!!"
			if x.Note {
				mark = "--"
			}
			fmt.Fprintf(e.stdout, "\n%s %s: %s\n   where: %s\n   cure:  %s\n", mark, c.Peer, x.Cause, x.Hop, x.Cure)
		}
	}
}
