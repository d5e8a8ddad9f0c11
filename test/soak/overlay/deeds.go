package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/etcd"
)

// happen does one thing at random, to a host where it is about one.
func (f *field) happen() (string, error) {
	for {
		n, do := f.Nodes[f.IntN(len(f.Nodes))], f.deeds()[f.IntN(len(f.deeds()))]
		switch {
		case do.about(n) && strings.HasPrefix(do.what, "store"):
			return do.what, do.do(n)
		case do.about(n):
			return n.Name + " " + do.what, do.do(n)
		}
	}
}

// deed is one thing that may happen, to a host that it is about.
type deed struct {
	what  string
	about func(*etcd.Node) bool
	do    func(*etcd.Node) error
}

func (f *field) deeds() []deed {
	member := func(n *etcd.Node) bool { return n.Member }
	up := func(*etcd.Node) bool { return !f.down }
	return []deed{
		{"is killed", (*etcd.Node).Runs, func(n *etcd.Node) error { n.Kill(); return nil }},
		{"is restarted", (*etcd.Node).Runs, func(n *etcd.Node) error { n.Stop(); return f.start(n) }},
		{"is cut off", member, func(n *etcd.Node) error { return n.Unplug(f.ctx, true) }},
		{"does not hear etcd", member, func(n *etcd.Node) error { return n.DeafToStore(f.ctx, true) }},
		{"gets a container", f.answers, f.add},
		{"loses a container", func(n *etcd.Node) bool { return len(n.Boxes) > 0 }, f.del},
		{"leaves", func(n *etcd.Node) bool { return f.hears(n) && f.canGo(n) }, f.leave},
		{"is forgotten", f.canGo, f.forget},
		{"is made anew", member, f.reimage},
		{"moves", member, f.move},
		{"is damaged", (*etcd.Node).Runs, f.damage},
		{"store dies", up, func(*etcd.Node) error { f.Etcd.Kill(); f.down = true; return nil }},
		{"store is saved", up, func(*etcd.Node) error { return f.save() }},
		{"store is restored", func(*etcd.Node) bool { return true }, func(*etcd.Node) error { return f.restore() }},
	}
}

// start starts an agent, which does not answer at once.
func (f *field) start(n *etcd.Node) error {
	f.fresh = append(f.fresh, n)
	return n.Start()
}

// answers tells whether an agent runs long enough to answer the plugin.
func (f *field) answers(n *etcd.Node) bool { return n.Runs() && !slices.Contains(f.fresh, n) }

// hears tells whether it hears etcd, too.
func (f *field) hears(n *etcd.Node) bool {
	return n.Member && f.answers(n) && !n.Cut && !n.NoStore && !f.down
}

func (f *field) del(n *etcd.Node) error {
	for name := range n.Boxes {
		return n.Del(f.ctx, name)
	}
	return nil
}

// canGo tells whether a host that has joined may go: another one hears etcd.
func (f *field) canGo(n *etcd.Node) bool { return n.Member && f.other(n) != nil }

func (f *field) other(than *etcd.Node) *etcd.Node {
	for _, o := range f.Nodes {
		if o != than && f.hears(o) {
			return o
		}
	}
	return nil
}

func (f *field) leave(n *etcd.Node) error {
	if err := f.holds(n); err != nil { // a restored snapshot may have its earlier boot, by which it is refused for a while
		return err
	}
	for len(n.Boxes) > 0 {
		if err := f.del(n); err != nil {
			return err
		}
	}
	if out, err := n.Fairlead(f.ctx, "net", "leave"); err != nil {
		return fmt.Errorf("leave: %w: %s", err, out)
	}
	n.Stop()
	n.Member, f.snapshot = false, "" // that would bring it back
	return nil
}

// forget is what an operator does when a host is gone for good.
func (f *field) forget(n *etcd.Node) error {
	n.Kill()
	if err := n.Reimage(f.ctx); err != nil {
		return err
	}
	by := f.other(n)
	for began := time.Now(); ; pause(f.ctx, 100*time.Millisecond) {
		out, err := by.Fairlead(f.ctx, "net", "forget-node", n.Name)
		if err == nil {
			break
		}
		if time.Since(began) > patience {
			return fmt.Errorf("forget: %w: %s", err, out)
		}
	}
	n.Member, f.snapshot = false, ""
	return nil
}

func (f *field) reimage(n *etcd.Node) error {
	n.Kill()
	return n.Reimage(f.ctx)
}

func (f *field) move(n *etcd.Node) error {
	n.Kill()
	f.moves++
	return n.Move(f.ctx, netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + f.moves%100)}))
}

func (f *field) damage(n *etcd.Node) error {
	harm := []string{
		"ip link del fl-vx42", "ip route flush proto 94", "nft delete table inet fairlead", "ip neigh flush dev fl-vx42 nud permanent",
		"for m in $(bridge fdb show dev fl-vx42 | cut -d' ' -f1); do bridge fdb replace $m dev fl-vx42 dst 192.0.2.250 self permanent; done",
	}
	_, _ = n.Sh(f.ctx, harm[f.IntN(len(harm))]) // what is not there cannot be damaged
	return nil
}

func (f *field) save() error {
	f.snapshot = filepath.Join(f.Sim.Host("store").Dir, "snapshot")
	return f.Etcd.Save(f.ctx, f.snapshot)
}

// restore brings an old snapshot back while all hosts are there: who is away for longer than the grace period may lose
// what the snapshot does not know.
func (f *field) restore() error {
	if err := f.calm(); err != nil {
		return err
	}
	token := "etcd-cluster"
	if f.IntN(2) == 0 {
		token = fmt.Sprint("another", f.IntN(1000))
	}
	f.fresh = slices.Clone(f.Nodes) // what they hold is in dispute for a moment
	return f.WipeAndRestore(f.ctx, f.snapshot, token)
}
