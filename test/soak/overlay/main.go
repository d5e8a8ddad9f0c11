// Command overlay plays the overlay's leases and its hosts at random and counts blocks that two hosts held and entries
// that stayed in a kernel without an owner. `make soak-overlay` runs it; SHORT=1 is a minute. There are three kinds of
// histories:
//
//	the model      the protocol's pure decisions (overlay/store, test of the model), in processes of its test
//	clients        the real etcd client with a real etcd, wires that are cut and agents that die (clients.go)
//	hosts          whole hosts with agents, containers and kernels (hosts.go)
//
// It needs root, works on loopback and in namespaces of its own, and leaves nothing.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// result is the last line that is printed.
type result struct {
	Soak         string  `json:"soak"`
	Histories    int     `json:"histories"` // of the model and of clients, and rounds with hosts
	DoubleOwners int     `json:"double_owners"`
	StaleEntries int     `json:"stale_entries"`
	Model        int     `json:"histories_model"`
	Clients      int     `json:"histories_clients"`
	Rounds       int     `json:"rounds_hosts"`
	Unsettled    int     `json:"unsettled"`          // after which all was not well within a minute
	Slowest      float64 `json:"slowest_settle_s"`   // of the rounds with hosts
	Median       float64 `json:"median_settle_s"`    // the same
	Lost         int     `json:"containers_unheard"` // that another did not reach in the end
	Seed         uint64  `json:"seed"`

	faults []string
}

func (r *result) bad(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// size is how much is played.
type size struct{ model, clients, rounds int }

func main() {
	short := flag.Bool("short", os.Getenv("SHORT") == "1", "a minute")
	seed := flag.Uint64("seed", rand.Uint64(), "of chance; the model's histories tell their own")
	model := flag.String("model", "", "test binary of overlay/store; empty: without the model")
	bin := flag.String("bin", "", "directory of fairlead and fairlead-cni")
	only := flag.String("only", "", "model, clients or hosts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n := size{model: 10_000, clients: 600, rounds: 100}
	if *short {
		n = size{model: 200, clients: 12, rounds: 6}
	}
	for name, count := range map[string]*int{"model": &n.model, "clients": &n.clients, "hosts": &n.rounds} {
		if *only != "" && *only != name {
			*count = 0
		}
	}
	// As two cores take when they are ours.
	estimate := time.Duration(n.model)*35*time.Millisecond + time.Duration((n.clients+atOnce-1)/atOnce)*17*time.Second + time.Duration(n.rounds)*4*time.Second
	fmt.Printf("seed %d: %d histories of the model, %d of clients, %d rounds with hosts; about %s\n", *seed, n.model, n.clients, n.rounds, estimate.Round(time.Second))
	out := result{Soak: "overlay", Seed: *seed}
	err := soak(ctx, n, *model, *bin, &out)
	for _, line := range out.faults {
		fmt.Println(line)
	}
	text, encoding := json.Marshal(out)
	if encoding == nil {
		fmt.Println(string(text))
	}
	if err != nil || len(out.faults) > 0 {
		fmt.Fprintf(os.Stderr, "soak-overlay: %d faults (%v)\n", len(out.faults), err)
		os.Exit(1)
	}
}

func soak(ctx context.Context, n size, model, bin string, out *result) error {
	if n.model > 0 && model != "" {
		if err := histories(ctx, model, n.model, out); err != nil {
			return err
		}
	}
	if n.clients > 0 {
		if err := clients(ctx, n.clients, out.Seed, out); err != nil {
			return err
		}
		fmt.Printf("clients: %d histories, %d double owners\n", out.Clients, out.DoubleOwners)
	}
	if n.rounds > 0 {
		if err := hosts(ctx, n.rounds, bin, out); err != nil {
			return err
		}
	}
	out.Histories = out.Model + out.Clients + out.Rounds
	return nil
}
