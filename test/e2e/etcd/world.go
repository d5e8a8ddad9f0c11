package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/e2e/sim"
)

// World is hosts on one wire, and one more with etcd.
type World struct {
	Sim   *sim.Cluster
	Etcd  *daemons.EtcdDaemon
	Nodes []*Node
	// Awaited is what differed before all was well, for people.
	Awaited Difference

	bin      string
	networks string // of the configuration, as YAML; empty: the default
	boots    int
}

// New makes hosts, whose agents are not started yet, and an etcd that answers. bin is the directory of fairlead and
// fairlead-cni. Close it when done, also after an error.
func New(ctx context.Context, bin string, names ...string) (*World, error) {
	w := &World{bin: bin}
	var err error
	if w.Sim, err = sim.New(ctx, "fairlead-etcd", append(names, "store")...); err != nil {
		return w, err
	}
	for _, name := range names {
		h := w.Sim.Host(name)
		n := &Node{Host: h, Called: name, Addr: h.Address, Boxes: map[string]Box{}, w: w}
		w.Nodes = append(w.Nodes, n)
		if err := n.boot(ctx); err != nil {
			return w, err
		}
	}
	host := w.Sim.Host("store")
	dir := filepath.Join(host.Dir, "etcd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return w, err
	}
	w.Etcd, err = daemons.Etcd(ctx, daemons.Options{Dir: dir, Prefix: host.Prefix(), Address: host.Address.String() + ":2379"})
	return w, err
}

// Close ends everything. What the agents logged is gone then.
func (w *World) Close(ctx context.Context) error {
	var errs []error
	for _, n := range w.Nodes {
		n.Stop()
	}
	if w.Etcd != nil {
		errs = append(errs, w.Etcd.Stop(ctx))
	}
	if w.Sim != nil {
		errs = append(errs, w.Sim.Close(), os.RemoveAll(w.Sim.Dir))
	}
	return errors.Join(errs...)
}

// Node gives the host of that name.
func (w *World) Node(name string) *Node {
	for _, n := range w.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// members are the nodes that have joined and not left.
func (w *World) members() (out []*Node) {
	for _, n := range w.Nodes {
		if n.Member {
			out = append(out, n)
		}
	}
	return out
}

const prefix = "/fairlead/v1/default/"

// Put writes a record below the overlay's prefix, past all agents.
func (w *World) Put(ctx context.Context, key, value string) error {
	_, err := w.ctl(ctx, "put", prefix+key, value)
	return err
}

func (w *World) ctl(ctx context.Context, args ...string) (string, error) {
	return w.Etcd.Run(ctx, append([]string{"env", "ETCDCTL_API=3", "etcdctl", "--endpoints", w.Etcd.URL}, args...)...)
}

// WipeAndRestore ends etcd as a crash does and starts it with the data of a snapshot. Another token makes it another
// cluster.
func (w *World) WipeAndRestore(ctx context.Context, snapshot, token string) error {
	w.Etcd.Kill()
	if err := w.Etcd.Restore(ctx, snapshot, token); err != nil {
		return err
	}
	return w.Etcd.Start(ctx)
}

// Wipe ends etcd as a crash does and starts it with nothing.
func (w *World) Wipe(ctx context.Context) error {
	w.Etcd.Kill()
	if err := os.RemoveAll(filepath.Join(w.Sim.Host("store").Dir, "etcd", "data")); err != nil {
		return err
	}
	return w.Etcd.Start(ctx)
}

// Build makes fairlead and fairlead-cni in dir, unless FAIRLEAD_BIN is the directory of some. It gives their directory.
func Build(ctx context.Context, dir string) (string, error) {
	if bin := os.Getenv("FAIRLEAD_BIN"); bin != "" {
		return bin, nil
	}
	c := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "github.com/fairlead-dev/fairlead/cmd/...")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, text)
	}
	return dir, nil
}
