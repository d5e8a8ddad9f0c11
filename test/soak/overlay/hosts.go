package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/etcd"
	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// field is three hosts with agents and containers, and an etcd.
type field struct {
	*etcd.World
	*rand.Rand
	ctx      context.Context
	snapshot string          // of etcd; empty: none that knows who is there
	boxes    int             // that were ever made
	moves    int             // addresses that hosts got
	fresh    []*etcd.Node    // whose agents were started in this round: they may not answer yet
	down     bool            // etcd
	took     []time.Duration // to settle
}

// hosts plays rounds: a few things happen at once, then all comes back, and every kernel must have what the living
// owners imply, and every container reach every other.
func hosts(ctx context.Context, rounds int, bin string, out *result) (err error) {
	if _, err := sim.Sweep("fairlead-etcd", false); err != nil {
		return err
	}
	if bin == "" {
		dir, err := os.MkdirTemp("", "fl-soak-overlay-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }() // binaries only
		if bin, err = etcd.Build(ctx, dir); err != nil {
			return err
		}
	}
	w, err := etcd.New(ctx, bin, "web1", "web2", "web3")
	defer func() { err = errors.Join(err, w.Close(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	f := &field{World: w, Rand: rand.New(rand.NewPCG(out.Seed, 3)), ctx: ctx}
	if err := f.begin(); err != nil {
		return err
	}
	for out.Rounds < rounds && ctx.Err() == nil {
		happened, took, d, err := f.round()
		if err != nil {
			return fmt.Errorf("round %d (%s): %w\n%s", out.Rounds, happened, err, f.logs())
		}
		out.Rounds++
		out.StaleEntries += len(d.Stale)
		out.DoubleOwners += len(d.Doubles)
		out.Lost += len(d.Deaf)
		fmt.Printf("round %d: %s: settled after %s, %d stale, %d double\n", out.Rounds, happened, took.Round(10*time.Millisecond), len(d.Stale), len(d.Doubles))
		if !d.None() {
			out.Unsettled++
			out.bad("round %d (%s), seed %d:\n%s\n%s", out.Rounds, happened, out.Seed, d, f.logs())
			break // what follows would tell of the same
		}
		f.took = append(f.took, took)
	}
	if slices.Sort(f.took); len(f.took) > 0 {
		out.Median, out.Slowest = f.took[len(f.took)/2].Seconds(), f.took[len(f.took)-1].Seconds()
	}
	return ctx.Err()
}

// begin lets all join, and makes a network that only etcd knows.
func (f *field) begin() error {
	for _, n := range f.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if err := f.calm(); err != nil {
		return err
	}
	_, err := f.Nodes[0].Fairlead(f.ctx, "net", "create", "green", "--cidr", "10.43.0.0/16", "--vni", "43")
	return err
}

// logs are the ends of what the agents logged.
func (f *field) logs() string {
	var b strings.Builder
	for _, n := range f.Nodes {
		text, err := os.ReadFile(n.Log())
		all := strings.Split(string(text), "\n")
		fmt.Fprintf(&b, "%s: %v\n%s\n", n.Name, err, strings.Join(all[max(0, len(all)-60):], "\n"))
	}
	return b.String()
}

func (f *field) round() (happened string, took time.Duration, d etcd.Difference, err error) {
	f.fresh = nil
	var what []string
	for _, n := range f.Nodes {
		if !n.Member && f.IntN(3) > 0 {
			what = append(what, n.Name+" joins")
			if err := f.start(n); err != nil {
				return n.Name + " joins", 0, d, err
			}
		}
	}
	for range 1 + f.IntN(3) {
		did, err := f.happen()
		what = append(what, did)
		if err != nil {
			return strings.Join(what, ", "), 0, d, err
		}
		pause(f.ctx, time.Duration(f.IntN(700))*time.Millisecond)
	}
	happened = strings.Join(what, ", ")
	if err := f.calm(); err != nil {
		return happened, 0, d, err
	}
	took, d = f.Settle(f.ctx, patience)
	return happened, took, d, nil
}

// calm ends all that is out of order, and waits until every host holds blocks and has a container.
func (f *field) calm() error {
	if f.down {
		if err := f.Etcd.Start(f.ctx); err != nil {
			return err
		}
		f.down = false
	}
	for _, n := range f.Nodes {
		var errs []error
		if n.Cut {
			errs = append(errs, n.Unplug(f.ctx, false))
		}
		if n.NoStore {
			errs = append(errs, n.DeafToStore(f.ctx, false))
		}
		if n.Member && !n.Runs() {
			errs = append(errs, n.Start())
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	for _, n := range f.Nodes {
		if !n.Member {
			continue
		}
		if err := f.holds(n); err != nil {
			return err
		}
		if len(n.Boxes) == 0 {
			if err := f.add(n); err != nil {
				return err
			}
		}
	}
	if f.snapshot == "" {
		return f.save()
	}
	return nil
}

// holds waits until a host answers and holds a block of its networks.
func (f *field) holds(n *etcd.Node) error {
	var last error
	for began := time.Now(); time.Since(began) < patience; pause(f.ctx, 20*time.Millisecond) {
		list, err := n.Networks(f.ctx)
		if last = err; err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(w etcd.Network) bool { return len(w.Blocks) == 0 }) {
			return nil
		}
	}
	return fmt.Errorf("%s does not hold a block: %w", n.Name, last)
}

func (f *field) add(n *etcd.Node) error {
	f.boxes++
	list, err := n.Networks(f.ctx)
	if err != nil {
		return err
	}
	return n.Add(f.ctx, fmt.Sprint("c", f.boxes), list[f.IntN(len(list))].Name)
}
