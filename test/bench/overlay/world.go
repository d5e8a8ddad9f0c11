package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// world is what one run makes and finds.
type world struct {
	o     options
	dir   string
	quiet time.Duration // without a change, after which nothing more is expected
	times int           // that an agent with very many peers is started again, and given one more
	r     report

	agents   [2]*agent
	flannels [2]*flannel
	store    *etcd
	all      []*namespace
}

func (w *world) run(ctx context.Context) error {
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ := strings.Cut(string(text), " ")
		w.r.note("load before the run: %s", load)
	}
	rounds, each, trips, manyRounds := 9, 3*time.Second, 20000, 3
	if w.o.short {
		rounds, each, trips, manyRounds = 3, time.Second, 5000, 1
		w.quiet, w.times = time.Second, 1
		w.r.note("SHORT: 3 rounds of 1 s and of 5,000 round trips; peers once")
	}
	if w.o.only != "peers" {
		if err := w.paths(ctx, rounds, each, trips); err != nil {
			return err
		}
	}
	if w.o.only != "paths" {
		return w.peers(ctx, manyRounds)
	}
	return nil
}

// paths measures what containers of two hosts see of each other.
func (w *world) paths(ctx context.Context, rounds int, each time.Duration, trips int) (err error) {
	defer w.close()
	bare, err := w.pair(ctx, "bare")
	if err != nil {
		return err
	}
	host := &path{name: "host", from: bare[0], to: bare[1], addr: addresses[1]}
	ours, err := w.pair(ctx, "ours")
	if err != nil {
		return err
	}
	vxlan, direct, err := w.join(ctx, ours)
	if err != nil {
		return err
	}
	list := []*path{host, vxlan, direct}
	other, err := w.pair(ctx, "flannel")
	if err != nil {
		return err
	}
	peer, err := w.joinFlannel(ctx, other)
	if err != nil {
		w.r.note("flannel could not be measured: %v", err)
	} else {
		list = append(list, peer)
	}
	if err := measure(ctx, list, rounds, each, trips); err != nil {
		return err
	}
	w.r.Host, w.r.TCPHost, w.r.DirectTCP = num(median(host.tcp)/1e9), num(ratio(vxlan.tcp, host.tcp)), num(ratio(direct.tcp, host.tcp))
	w.r.DirectRTT, w.r.VXLANRTT = num(over(direct.rtt, host.rtt)), num(over(vxlan.rtt, host.rtt))
	if peer != nil {
		w.r.TCP, w.r.PPS = num(ratio(vxlan.tcp, peer.tcp)), num(ratio(vxlan.pps, peer.pps))
		w.r.note("vxlan over flannel by CPU, which a busy machine disturbs less: TCP %.2f, packets %.2f", ratio(vxlan.tcpPerCPU, peer.tcpPerCPU), ratio(peer.cost, vxlan.cost))
	}
	for _, p := range list {
		fmt.Println(p)
		w.r.note("%s: TCP %.2f of host, packets %.2f of host (%.0f/s arrived of %.0f/s sent), by CPU %.2f and %.2f, round trip %+.1f us by the median, %+.1f by the mean, on %.1f",
			p.name, ratio(p.tcp, host.tcp), ratio(p.pps, host.pps), median(p.pps), median(p.sent), ratio(p.tcpPerCPU, host.tcpPerCPU), ratio(host.cost, p.cost), over(p.rtt, host.rtt), over(p.mean, host.mean), median(host.rtt))
	}
	return nil
}

// pair is newPair, for as long as the daemons.
func (w *world) pair(ctx context.Context, name string) (pair, error) {
	p, err := newPair(ctx, name)
	for _, n := range p {
		if n != nil {
			w.all = append(w.all, n)
		}
	}
	return p, err
}

func (p *path) String() string {
	gbps := make([]float64, len(p.tcp))
	for i, b := range p.tcp {
		gbps[i] = b / 1e9
	}
	return fmt.Sprintf("%-8s TCP %.1f Gbit/s, packets %.0f/s, sent %.0f/s, round trips %.1f us", p.name, gbps, p.pps, p.sent, p.rtt)
}

// config is that of one of two hosts with two networks, of which one goes by VXLAN and one plainly.
func config(host int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node: {name: web%d, address: %s}\noverlay:\n  store: static\n  networks:\n  - {name: tunnel, cidr: 10.42.0.0/16, vni: 42, path: vxlan}\n  - {name: plain, cidr: 10.43.0.0/16, vni: 43, path: direct}\n  peers:\n", host, addresses[host])
	for i, a := range addresses {
		fmt.Fprintf(&b, "  - {name: web%d, address: %s, blocks: [10.42.%[1]d.0/24, 10.43.%[1]d.0/24]}\n", i, a)
	}
	return b.String()
}

// join starts an agent on each host and attaches containers by the real plugin.
func (w *world) join(ctx context.Context, hosts pair) (vxlan, direct *path, err error) {
	for i, h := range hosts {
		if w.agents[i], err = startAgent(ctx, w.o.bin, h, fmt.Sprintf("%s/ours%d", w.dir, i), config(i)); err != nil {
			return nil, nil, err
		}
	}
	way := func(name, network, dev string) (*path, error) {
		p, err := w.between(name, func(i int) (*namespace, string, error) {
			return w.agents[i].attach(ctx, w.o.bin, network, fmt.Sprintf("%s%d", network, i))
		})
		if err != nil {
			return nil, err
		}
		return p, w.goesBy(ctx, hosts, p, dev)
	}
	if vxlan, err = way("vxlan", "tunnel", "fl-vx42"); err == nil {
		direct, err = way("direct", "plain", under)
	}
	return vxlan, direct, err
}

// joinFlannel does the same with flannel and the bridge plugin.
func (w *world) joinFlannel(ctx context.Context, hosts pair) (_ *path, err error) {
	const network = "10.244.0.0/16"
	if _, err := os.Stat(w.o.flannel); err != nil {
		return nil, err
	}
	if w.store, err = startEtcd(ctx, hosts[0], w.dir, addresses[0], network); err != nil {
		return nil, err
	}
	for i, h := range hosts {
		if w.flannels[i], err = startFlannel(ctx, w.o.flannel, h, w.dir, w.store); err != nil {
			return nil, err
		}
	}
	p, err := w.between("flannel", func(i int) (*namespace, string, error) {
		return w.flannels[i].attach(ctx, w.o.reference, hosts[i], w.dir, network, fmt.Sprintf("flannel%d", i))
	})
	if err != nil {
		return nil, err
	}
	if err := w.goesBy(ctx, hosts, p, "flannel.1"); err != nil {
		return nil, err
	}
	version, err := hosts[0].output(ctx, w.o.flannel, "-version")
	if err != nil {
		return nil, err
	}
	nf, err := hosts[0].output(ctx, "cat", "/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil {
		nf = "absent"
	}
	w.r.Peers["flannel (VXLAN backend, ip-masq, etcd)"] = strings.TrimSpace(version)
	w.r.Peers["reference bridge plugin"] = w.o.version
	w.r.note("flannel: bridge-nf-call-iptables is %s, as the kernel has it; flanneld asks for br_netfilter", strings.TrimSpace(nf))
	return p, nil
}

// between makes a container on each host.
func (w *world) between(name string, attach func(host int) (*namespace, string, error)) (*path, error) {
	p := &path{name: name}
	for i, n := range []**namespace{&p.from, &p.to} {
		var err error
		if *n, p.addr, err = attach(i); *n != nil {
			w.all = append(w.all, *n)
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// goesBy waits until both hosts send for the path's ends by a device, and a packet passes.
func (w *world) goesBy(ctx context.Context, hosts pair, p *path, dev string) error {
	back, err := p.from.sh(ctx, "ip -4 -o addr show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'")
	if err != nil {
		return err
	}
	return until(ctx, p.name+" goes by "+dev, 20*time.Second, func() (bool, error) {
		for i, addr := range []string{p.addr, strings.TrimSpace(back)} {
			route, err := hosts[i].sh(ctx, "ip route get "+addr)
			if err != nil || !strings.Contains(route, " dev "+dev+" ") {
				return false, errors.Join(err, errors.New(strings.TrimSpace(route)))
			}
		}
		_, err := p.from.sh(ctx, "ping -c 1 -W 1 "+p.addr)
		return err == nil, err
	})
}

// close ends all that paths started. What an ending daemon says does not matter then.
func (w *world) close() {
	for _, a := range w.agents {
		_ = a.stop()
	}
	for _, f := range w.flannels {
		f.stop()
	}
	w.store.stop()
	for _, n := range w.all {
		n.close()
	}
}

// peers measures a host with very many.
func (w *world) peers(ctx context.Context, rounds int) error {
	var ours, theirs cost
	for i := range rounds {
		if err := ours.ours(ctx, w, i); err != nil {
			return fmt.Errorf("%d peers: %w", manyPeers, err)
		}
		if err := theirs.flannel(ctx, w, i); err != nil {
			w.r.note("flannel with %d peers could not be measured: %v", manyPeers, err)
		}
	}
	w.r.Apply, w.r.Restart, w.r.Writes = num(median(ours.apply)), num(median(ours.again)), num(median(ours.againWrites))
	w.r.note("apply and restart are the agent's own word, from the start of its overlay to \"overlay is up\": configuration, first look, difference and writing; whole agent from exec to ready %.0f ms with %.0f ms of CPU, again %.0f with %.0f", median(ours.ready), median(ours.used), median(ours.readyAgain), median(ours.usedAgain))
	w.r.note("%d peers, first: %.0f changes seen in the kernel, in %.0f ms from the first to the last; one peer more: %.1f ms of CPU over a reload without a change, %.0f changes; %.1f MiB over the agent without peers", manyPeers, median(ours.applyWrites), ours.span[0], median(ours.change), median(ours.changeWrites), median(ours.rss))
	if len(theirs.again) > 0 {
		w.r.note("flannel, %d peers: %.0f ms from its first peer to the last, %.0f changes seen; restart %.0f ms, %.0f changes seen; one more: %.1f ms, %.0f changes", manyPeers,
			median(theirs.apply), median(theirs.applyWrites), median(theirs.again), median(theirs.againWrites), median(theirs.change), median(theirs.changeWrites))
	}
	return nil
}
