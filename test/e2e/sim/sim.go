// Package sim makes several hosts on one machine, for the demo and the end-to-end tests.
//
// A host is a network, mount and UTS namespace of its own, with its own /run, /etc/cni, /opt/cni and /var/lib
// directories, so that unchanged daemons with fixed paths run once on each. All hosts share the machine's processes,
// /sys and cgroups: `ip netns exec` is not used because it remounts /sys and hides the cgroups.
//
//	web1: eth0 192.0.2.11 ───── veth ───── eth0 192.0.2.12 :web2        (more than two hosts meet at a bridge)
//
// It owns the directory /tmp/MARK, the cgroup /MARK in every hierarchy and the processes in it, where MARK is unique to
// the run; whatever a killed run left is found by that mark and cleared by Sweep.
package sim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Cluster is a set of hosts that reach each other over IP.
type Cluster struct {
	Mark  string // names everything that belongs to this run, such as fairlead-demo-k3v9x2
	Dir   string // all files of this run
	Hosts []*Host

	wire *Host // holds the bridge when there are more than two hosts
}

// New makes a cluster with a host for each name; the n-th has the address 192.0.2.(10+n). The mark is kind and a
// random end, joined by a dash. It needs root. On an error everything made so far is gone again.
func New(ctx context.Context, kind string, names ...string) (_ *Cluster, err error) {
	dir, err := makeDir(kind)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Mark: filepath.Base(dir), Dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := claim(dir); err != nil {
		return nil, err
	}
	for i, name := range names {
		h, err := c.newHost(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("make host %s: %w", name, err)
		}
		h.Address = netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})
		c.Hosts = append(c.Hosts, h)
	}
	if err := c.join(ctx); err != nil {
		return nil, fmt.Errorf("join hosts: %w", err)
	}
	return c, nil
}

// makeDir makes the run's directory. Container roots lie in it, so it must not be on overlayfs: that cannot hold the
// upper directory of another overlay.
func makeDir(kind string) (string, error) {
	var tried []string
	for _, parent := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		if onOverlay(parent) {
			tried = append(tried, parent)
			continue
		}
		return os.MkdirTemp(parent, kind+"-")
	}
	return "", fmt.Errorf("make directory: %s are on overlayfs, which cannot hold container roots; mount a tmpfs at /tmp", strings.Join(tried, ", "))
}

// join connects the hosts: two by one veth pair, more by a pair each to a bridge in a namespace of its own. The links
// are born in their namespaces, so the machine's own never sees them.
func (c *Cluster) join(ctx context.Context) error {
	if len(c.Hosts) == 2 {
		a, b := c.Hosts[0], c.Hosts[1]
		if _, err := a.Run(ctx, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.pidText()); err != nil {
			return err
		}
	} else if err := c.joinByBridge(ctx); err != nil {
		return err
	}
	for _, h := range c.Hosts {
		if err := h.runAll(ctx,
			"ip addr add "+h.Address.String()+"/24 dev eth0",
			"ip link set eth0 up",
		); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) joinByBridge(ctx context.Context) (err error) {
	if c.wire, err = c.newHost(ctx, "wire"); err != nil {
		return err
	}
	if err := c.wire.runAll(ctx, "ip link add br0 type bridge", "ip link set br0 up"); err != nil {
		return err
	}
	for _, h := range c.Hosts {
		if err := c.wire.runAll(ctx,
			"ip link add "+h.Name+" type veth peer name eth0 netns "+h.pidText(),
			"ip link set "+h.Name+" master br0 up",
		); err != nil {
			return err
		}
	}
	return nil
}

// Host gives the host called name, or nil.
func (c *Cluster) Host(name string) *Host {
	for _, h := range c.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Close ends every process of the run, on every host, and removes its cgroups and files; the namespaces, with their
// links and mounts, die with the last process. Daemons that should end in order are ended by the caller before. It may
// be called twice.
func (c *Cluster) Close() error {
	err := sweep(c.Mark, c.Dir)
	for _, h := range append(c.Hosts, c.wire) {
		if h != nil {
			h.reap()
		}
	}
	return err
}
