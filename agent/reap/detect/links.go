package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
)

// links finds host ends of veth pairs that other people's network plugins have made. Those of the overlay are its own
// to speak of.
type links struct{ Host }

// Owned implements reap.Owner.
func (l links) Owned(context.Context) ([]reap.Resource, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer nl.Close()
	all, err := listLinks(nl)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	all = slices.DeleteFunc(all, func(k netlink.Link) bool {
		a := k.Attrs()
		return k.Type() != "veth" || a.NetNsID < 0 || slices.Contains(l.OurGroups, a.Group)
	})
	if len(all) == 0 {
		return nil, nil
	}
	far, err := l.farEnds(nl)
	if err != nil {
		return nil, err
	}
	out := make([]reap.Resource, 0, len(all))
	for _, k := range all {
		out = append(out, linkResource(k.Attrs(), far))
	}
	return out, nil
}

// farEnd is a network namespace that links lead to.
type farEnd struct {
	ns   host.NetNS
	file string
	pids []int
}

func linkResource(a *netlink.LinkAttrs, far map[int]farEnd) reap.Resource {
	r := reap.Resource{Kind: reap.Link, ID: a.Name, Instance: fmt.Sprint(a.Index)}
	to, ok := far[a.NetNsID]
	if !ok {
		r.ReportOnly = "its other end is in a namespace that no process and no file shows, so nothing tells whose it was"
		r.Evidence = []string{fmt.Sprintf("other end in namespace number %d", a.NetNsID)}
		return r
	}
	r.Claim.NetNS, r.PIDs = to.ns, to.pids
	r.Evidence = []string{"other end in " + to.ns.String()}
	if to.file != "" {
		r.Evidence = []string{fmt.Sprintf("other end in %s, held by %s", to.ns, to.file)}
	}
	return r
}

// farEnds gives the namespaces that have a number here, of files and of processes.
func (l links) farEnds(nl *netlink.Handle) (map[int]farEnd, error) {
	all, err := l.Processes()
	if err != nil {
		return nil, err
	}
	n := namespaces(l)
	out := map[int]farEnd{}
	add := func(path string, e farEnd) {
		f, err := os.Open(path)
		if err != nil {
			return // gone meanwhile
		}
		defer f.Close()
		if id, err := nl.GetNetNsIdByFd(int(f.Fd())); err == nil && id >= 0 {
			out[id] = e
		}
	}
	inside := n.inside(all)
	var held []reap.Resource
	for _, path := range n.files() {
		if ns, err := host.StatNetNS(path); err == nil && isNamespace(path) {
			held = append(held, reap.Resource{ID: path, PIDs: inside[ns], Claim: reap.Claim{NetNS: ns}})
		}
	}
	n.hold(held, all)
	for _, r := range held {
		add(r.ID, farEnd{r.Claim.NetNS, r.ID, r.PIDs})
	}
	for ns, pids := range inside {
		add(l.NetNSPath(pids[0]), farEnd{ns: ns, pids: pids})
	}
	return out, nil
}

func listLinks(nl *netlink.Handle) ([]netlink.Link, error) {
	for range 10 { // a dump that a change interrupted may miss entries
		list, err := nl.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return nil, errors.New("the kernel's links changed during each of ten dumps")
}

// Release implements reap.Owner.
func (links) Release(_ context.Context, r reap.Resource) error {
	l, err := netlink.LinkByName(r.ID)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", r.ID, err)
	}
	if fmt.Sprint(l.Attrs().Index) != r.Instance {
		return fmt.Errorf("link %s is another one by now", r.ID)
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", r.ID, err)
	}
	return nil
}
