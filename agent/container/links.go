package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
)

// A host link whose other end lies in another network namespace carries that namespace's number as seen from here
// (IFLA_LINK_NETNSID); RTM_GETNSID tells the number of a namespace we hold a file of. Together they say whose link it
// is, for every runtime alike.

// linkTable is the host's links that lead into containers, by index.
type linkTable map[int]link

type link struct {
	name string
	nsid int
}

func (t linkTable) clone() linkTable { return maps.Clone(t) }

// put takes one link and tells whether that changed the table.
func (t linkTable) put(index int, l link) bool {
	if t[index] == l {
		return false
	}
	t[index] = l
	return true
}

// links finds the containers behind the table's links. It belongs to one goroutine.
type links struct {
	host   host.Root
	handle *netlink.Handle    // opened when first needed
	nsids  map[host.NetNS]int // -1: the namespace has no number yet
	table  linkTable          // what nsids was asked for
}

func newLinks(root host.Root) *links { return &links{host: root, nsids: map[host.NetNS]int{}} }

func (l *links) close() {
	if l.handle != nil {
		l.handle.Close()
		l.handle = nil
	}
}

// assign fills in Links. It asks the kernel for a namespace's number when the namespace is new, and again when links
// changed and one of them leads where nobody is known to live.
func (l *links) assign(have []Container, table linkTable) {
	var own host.NetNS
	if ns, err := host.StatNetNS("/proc/thread-self/ns/net"); err == nil {
		own = ns
	}
	again := !maps.Equal(l.table, table) && l.strangers(table)
	nsids := map[host.NetNS]int{}
	for i := range have {
		c := &have[i]
		if _, done := nsids[c.NetNS]; done || c.NetNS.IsZero() || c.NetNS == own {
			continue
		}
		id, known := l.nsids[c.NetNS]
		if c.PID != 0 && (!known || id < 0 && again) {
			id, known = l.ask(c), true
		}
		if known {
			nsids[c.NetNS] = id
		}
	}
	l.nsids, l.table = nsids, table
	at := make(map[int][]Link, len(table))
	for index, k := range table {
		at[k.nsid] = append(at[k.nsid], Link{Index: index, Name: k.name})
	}
	for i := range have {
		if id, ok := nsids[have[i].NetNS]; ok && id >= 0 {
			have[i].Links = at[id]
		}
	}
}

// strangers tells whether a link leads into a namespace that no container is known to be in.
func (l *links) strangers(table linkTable) bool {
	known := map[int]bool{}
	for _, id := range l.nsids {
		known[id] = true
	}
	for _, k := range table {
		if !known[k.nsid] {
			return true
		}
	}
	return false
}

// ask gives the number of the container's network namespace, or -1.
func (l *links) ask(c *Container) int {
	f, err := os.Open(l.host.NetNSPath(c.PID))
	if err != nil {
		return -1
	}
	defer f.Close()
	if l.handle == nil {
		if l.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return -1
		}
	}
	id, err := l.handle.GetNetNsIdByFd(int(f.Fd()))
	if err != nil {
		return -1
	}
	return id
}

// watchLinks keeps the table of host links by the kernel's notifications; a lost one (ENOBUFS) means to read all anew.
func (v *Inventory) watchLinks(ctx context.Context) error {
	broken := false
	for ctx.Err() == nil {
		err := v.followLinks(ctx)
		if ctx.Err() == nil && !broken {
			v.log.Warn("host links were lost track of; reading them anew", "err", err)
		}
		broken = true
		sleep(ctx, time.Second)
	}
	return nil
}

func (v *Inventory) followLinks(ctx context.Context) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	cause := make(chan error, 1)
	v.setLinks(func(t linkTable) bool { clear(t); return true })
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case cause <- err:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribe to links: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // until the library closes it; its goroutine must not wait for us
		}
	}()
	// Not by ListExisting: the library then sends its question to the whole multicast group (netlink(7), nl_groups), and
	// every `ip monitor` of the host prints it. What changes meanwhile waits in updates.
	existing, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	v.setLinks(func(t linkTable) bool {
		for _, l := range existing {
			t.take(netlink.LinkUpdate{Header: unix.NlMsghdr{Type: unix.RTM_NEWLINK}, Link: l})
		}
		return true
	})
	v.markDirty()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-cause:
			return err
		case u, ok := <-updates:
			if !ok {
				return errors.New("the kernel's notifications ended")
			}
			if v.setLinks(func(t linkTable) bool { return t.take(u) }) {
				v.markDirty()
			}
		}
	}
}

func (v *Inventory) setLinks(f func(linkTable) bool) bool {
	v.kernel.mu.Lock()
	defer v.kernel.mu.Unlock()
	return f(v.kernel.tab)
}

// take notes one notification and tells whether it changed the table.
func (t linkTable) take(u netlink.LinkUpdate) bool {
	a := u.Attrs()
	switch {
	case u.IfInfomsg.Family == unix.AF_BRIDGE:
		return false // about a bridge's port, without the other end
	case u.Header.Type == unix.RTM_DELLINK, a.NetNsID < 0, u.Type() != "veth" && u.Type() != "netkit":
		_, had := t[a.Index]
		delete(t, a.Index)
		return had
	}
	return t.put(a.Index, link{a.Name, a.NetNsID})
}
