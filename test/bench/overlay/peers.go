package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const manyPeers = 5000

// manyBlock and manyAddress are what host i has, of which 0 is ours. So many are behind a router, not on one segment.
func manyBlock(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + i>>8), byte(i), 0}), 24)
}

func manyAddress(i int) string {
	if i == 0 {
		return addresses[0]
	}
	return netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)}).String()
}

// many is the configuration of a host with so many peers.
func many(peers int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node: {name: web0, address: %s}\noverlay:\n  store: static\n  networks: [{name: many, cidr: 10.0.0.0/8, vni: 42, path: vxlan}]\n  peers:\n", addresses[0])
	for i := range peers + 1 {
		fmt.Fprintf(&b, "  - {name: web%d, address: %s, blocks: [%s]}\n", i, manyAddress(i), manyBlock(i))
	}
	return b.String()
}

// newMany makes a host, a router that knows nobody, and a monitor on the host.
func newMany(ctx context.Context, name string) (pair, *monitor, error) {
	p, err := newPair(ctx, name)
	if err != nil {
		return p, nil, err
	}
	if _, err := p[1].sh(ctx, "sysctl -qw net.ipv4.ip_forward=1; ip route add blackhole 198.18.0.0/15"); err != nil {
		return p, nil, err
	}
	text, err := p[0].sh(ctx, "ip route add default via "+addresses[1]+"; ip -o link show "+under)
	if err != nil {
		return p, nil, err
	}
	index, _, _ := strings.Cut(text, ":")
	i, err := strconv.Atoi(index)
	if err != nil {
		return p, nil, err
	}
	m, err := monitorOf(p[0], uint32(i))
	return p, m, err
}

// cost is what so many peers cost: a value a round, in milliseconds where nothing else is said.
type cost struct {
	apply, again, change                   []float64
	applyWrites, againWrites, changeWrites []float64
	ready, readyAgain                      []float64 // from its start to being ready
	used, usedAgain                        []float64 // of CPU until then
	rss                                    []float64 // MiB over the same without peers
	span                                   []float64 // from the first change in the kernel to the last; the first start's, then those of starts again
}

// ours measures the agent: the first apply, a restart with nothing changed, and one peer more.
func (c *cost) ours(ctx context.Context, w *world, round int) (err error) {
	dir := filepath.Join(w.dir, fmt.Sprintf("many%d", round))
	alone, err := w.alone(ctx, dir+"-alone")
	if err != nil {
		return err
	}
	hosts, m, err := newMany(ctx, "many")
	if err != nil {
		return err
	}
	defer hosts.close()
	defer func() { err = errors.Join(err, m.end()) }()
	start := func(took, ready, used, writes *[]float64, then func(*agent) error) error {
		m.reset()
		began := time.Now()
		a, err := startAgent(ctx, w.o.bin, hosts[0], dir, many(manyPeers))
		if err == nil {
			add(ready, ms(time.Since(began)))
			add(used, ms(a.cpu()))
			seen := m.settled(w.quiet)
			add(writes, float64(seen.n))
			add(&c.span, ms(seen.took()))
			add(took, ms(a.lines("overlay is up")[0].Took))
			err = then(a)
		}
		return errors.Join(err, a.stop())
	}
	err = start(&c.apply, &c.ready, &c.used, &c.applyWrites, func(a *agent) error {
		full, err := a.rss()
		add(&c.rss, full-alone)
		return err
	})
	for i := range w.times {
		if err != nil {
			return err
		}
		err = start(&c.again, &c.readyAgain, &c.usedAgain, &c.againWrites, func(a *agent) error {
			if i < w.times-1 {
				return nil
			}
			return c.oneMore(ctx, w, a, m)
		})
	}
	return err
}

// oneMore gives the running agent one peer more. Its work is what it takes more than reading an unchanged file again:
// that is the static store's part, which no other store has.
func (c *cost) oneMore(ctx context.Context, w *world, a *agent, m *monitor) error {
	for i := range w.times {
		var used [2]time.Duration
		for k, peers := range []int{manyPeers + i, manyPeers + i + 1} {
			if err := a.configure(many(peers)); err != nil {
				return err
			}
			m.reset()
			before, reloads := a.cpu(), len(a.lines(reloaded))
			if err := a.Process.Signal(syscall.SIGHUP); err != nil {
				return err
			}
			if err := a.await(ctx, reloaded, reloads); err != nil {
				return err
			}
			seen := m.settled(w.quiet)
			used[k] = a.cpu() - before
			if k == 1 {
				add(&c.changeWrites, float64(seen.n))
			}
		}
		add(&c.change, ms(used[1]-used[0]))
	}
	return nil
}

const reloaded = "configuration reloaded"

// alone gives what memory an agent has without peers.
func (w *world) alone(ctx context.Context, dir string) (float64, error) {
	p, err := newPair(ctx, "alone")
	if err != nil {
		return 0, err
	}
	defer p.close()
	a, err := startAgent(ctx, w.o.bin, p[0], dir, many(0))
	if err != nil {
		return 0, errors.Join(err, a.stop())
	}
	time.Sleep(w.quiet)
	rss, err := a.rss()
	return rss, errors.Join(err, a.stop())
}

// flannel measures the peer in the same way. It says nothing of when it is done: its time is that from its first word of
// a host to the last, and for one host more that from the first change in the kernel to the last.
func (c *cost) flannel(ctx context.Context, w *world, round int) (err error) {
	hosts, m, err := newMany(ctx, "flannelmany")
	if err != nil {
		return err
	}
	defer hosts.close()
	defer func() { err = errors.Join(err, m.end()) }()
	dir := filepath.Join(w.dir, fmt.Sprintf("flannelmany%d", round))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	e, err := startEtcd(ctx, hosts[0], dir, "127.0.0.1", "10.0.0.0/8")
	defer e.stop()
	if err != nil {
		return err
	}
	leases := map[string]string{}
	for i := range manyPeers {
		leases[leaseKey(i+1)] = leaseOf(i + 1)
	}
	if err := e.put(ctx, leases); err != nil {
		return err
	}
	start := func(to, writes *[]float64, then func() error) error {
		m.reset()
		f, err := startFlannel(ctx, w.o.flannel, hosts[0], dir, e)
		defer f.stop()
		if err != nil {
			return err
		}
		if err := until(ctx, "flannel's peers", time.Minute, func() (bool, error) {
			n, took, err := f.served()
			if err == nil && n >= manyPeers {
				add(to, ms(took))
			}
			return n >= manyPeers, err
		}); err != nil {
			return err
		}
		add(writes, float64(m.settled(w.quiet).n))
		return then()
	}
	if err := start(&c.apply, &c.applyWrites, func() error { return nil }); err != nil {
		return err
	}
	return start(&c.again, &c.againWrites, func() error {
		m.reset()
		if err := e.put(ctx, map[string]string{leaseKey(manyPeers + 1): leaseOf(manyPeers + 1)}); err != nil {
			return err
		}
		seen := m.settled(w.quiet)
		add(&c.change, ms(seen.took()))
		add(&c.changeWrites, float64(seen.n))
		return nil
	})
}

// leaseKey and leaseOf are a host as flannel keeps it in etcd.
func leaseKey(i int) string {
	return "/coreos.com/network/subnets/" + strings.Replace(manyBlock(i).String(), "/", "-", 1)
}

func leaseOf(i int) string {
	return fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}}`, manyAddress(i), i>>8, i&255)
}

func add(to *[]float64, v float64) { *to = append(*to, v) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
