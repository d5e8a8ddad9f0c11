package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// Demo is one run.
type Demo struct {
	cluster *sim.Cluster
	nodes   []*Node
	keep    bool
	bin     string // directory with fairlead, fairlead-cni and traffic
	image   string // OCI archive
}

// newDemo makes the hosts and what runs on them before Fairlead does: containerd and rsyslog. When that fails it also
// gives what there is of them, which the caller ends; nil when there is nothing.
func newDemo(ctx context.Context, bin string, keep bool) (*Demo, error) {
	cluster, err := sim.New(ctx, kind, "web1", "web2")
	if err != nil {
		return nil, err
	}
	d := &Demo{cluster: cluster, keep: keep, bin: filepath.Join(cluster.Dir, "bin")}
	fmt.Printf("fairlead demo: two hosts on this machine, web1 and web2 (%s)\n\n", cluster.Dir)
	if err := d.programs(ctx, bin); err != nil {
		return d, err
	}
	if d.image, err = daemons.BusyboxImage(cluster.Dir); err != nil {
		return d, err
	}
	for i, h := range cluster.Hosts {
		d.nodes = append(d.nodes, &Node{Host: h, demo: d, block: fmt.Sprintf("10.42.%d.0/24", i+1)})
	}
	return d, d.each(func(n *Node) error { return n.prepare(ctx) })
}

// programs copies the programs of this run where every host sees them, so that a later `make build` changes nothing that
// is running.
func (d *Demo) programs(ctx context.Context, from string) error {
	if err := os.MkdirAll(d.bin, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"fairlead", "fairlead-cni"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("%w; run `make build` in the repository first", err)
		}
		if err := os.WriteFile(filepath.Join(d.bin, name), b, 0o755); err != nil {
			return err
		}
	}
	gocmd := os.Getenv("GO")
	if gocmd == "" {
		gocmd = "go"
	}
	build := exec.CommandContext(ctx, gocmd, "build", "-trimpath", "-o", filepath.Join(d.bin, "traffic"), "./test/e2e/traffic")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build traffic: %w: %s", err, out)
	}
	return nil
}

// show is the demo itself: each step prints its line when it was true.
func (d *Demo) show(ctx context.Context) error {
	for _, step := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"hosts", d.hosts},
		{"addresses", d.addresses},
		{"ping", d.ping},
		{"tcp", d.tcp},
		{"logs", d.logs},
		{"scrape", d.scrape},
		{"volume", d.volume},
		{"kill -9", d.restart},
		{"orphans", d.orphans},
		{"removal", d.removal},
	} {
		if step.name == "removal" && d.keep {
			continue
		}
		said, err := step.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		say(step.name, said)
	}
	return nil
}

// say prints what a step found to be true, further lines below the first.
func say(name, text string) {
	fmt.Printf("  ok  %-10s %s\n", name, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 17)))
}

// each calls f for all nodes at once and gives what went wrong.
func (d *Demo) each(f func(*Node) error) error {
	errs := make([]error, len(d.nodes))
	var wg sync.WaitGroup
	for i, n := range d.nodes {
		wg.Go(func() {
			if err := f(n); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// end stops everything in order and removes it. It may be called after any failure.
func (d *Demo) end(ctx context.Context) error {
	return errors.Join(d.each(func(n *Node) error { return n.end(ctx) }), d.cluster.Close())
}

// savedLogs is the one thing that a demo leaves, and only when something was not true. The next one removes it.
const savedLogs = "/tmp/fairlead-demo.logs"

// saveLogs keeps what a person wants to read after a failure, where the clean-up does not reach it.
func (d *Demo) saveLogs() error {
	to := savedLogs
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, n := range d.nodes {
		for _, pattern := range []string{"*.log", "etc/fairlead/*.yaml", "rsyslog/*.log", "containerd/*.log"} {
			paths, err := filepath.Glob(filepath.Join(n.Dir, pattern))
			if err != nil {
				return err
			}
			for _, path := range paths {
				b, err := os.ReadFile(path)
				if err == nil {
					err = os.WriteFile(filepath.Join(to, n.Name+"-"+filepath.Base(path)), b, 0o644)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	fmt.Printf("\n  the agents' and daemons' logs are kept in %s\n", to)
	return nil
}
