package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

var attaching = []Case{
	{Name: "add", Says: "what the result says of interfaces, addresses, routes and MACs is what the kernel has, and packets pass", Run: add},
	{Name: "first-packet", Says: "the first packet to each of ten containers passes, right after ADD", Run: firstPacket},
	{Name: "add-twice", Says: "a second ADD gives the same result or fails, and takes no second address", Run: leavesNothing(3*time.Second, addTwice)},
	{Name: "add-taken-name", Says: "ADD fails when the interface's name is taken, and leaves what was there and nothing else", Run: addTakenName},
	{Name: "add-no-namespace", Says: "ADD into a namespace that is gone fails and leaves nothing", Run: leavesNothing(3*time.Second, addNoNamespace)},
	{Name: "interfaces", Says: "a container has two interfaces with addresses of their own, and DEL of one spares the other", Run: leavesNothing(3*time.Second, interfaces)},
	{Name: "default-route", Says: "a default route that is there before stays the one in use", Run: defaultRoute},
}

func add(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	res, err := w.Add(ctx, To(b))
	if err != nil {
		return err
	}
	if err := w.matches(res, b, "eth0"); err != nil {
		return err
	}
	addr, err := addressOf(res)
	if err != nil {
		return err
	}
	if err := w.reaches(addr); err != nil {
		return err
	}
	other, err := w.attached(ctx, "b")
	if err != nil {
		return err
	}
	_, err = other.Sh("ping -c1 -W1 " + addr.String())
	return err
}

// matches compares a result with the kernel.
func (w *World) matches(res *types100.Result, b *Box, ifName string) error {
	at := slices.IndexFunc(res.Interfaces, func(i *types100.Interface) bool { return i.Name == ifName && i.Sandbox != "" })
	if at < 0 {
		return fmt.Errorf("the result has no interface %s in the container: %v", ifName, res)
	}
	for _, i := range res.Interfaces {
		sh := w.Sh
		if i.Sandbox != "" {
			sh = b.Sh
			if i.Sandbox != b.Path {
				return fmt.Errorf("%s is in sandbox %q, CNI_NETNS was %q", i.Name, i.Sandbox, b.Path)
			}
		}
		link, err := sh("ip -o link show " + i.Name)
		if err != nil {
			return err
		}
		if i.Mac != "" && !strings.Contains(link, strings.ToLower(i.Mac)) || i.Mtu > 0 && !strings.Contains(link, fmt.Sprintf("mtu %d ", i.Mtu)) || !strings.Contains(link, ",UP") && !strings.Contains(link, "<UP") {
			return fmt.Errorf("the result says %s has MAC %s and MTU %d; the kernel: %s", i.Name, i.Mac, i.Mtu, link)
		}
	}
	have, err := b.Sh("ip -o addr show dev " + ifName)
	if err != nil {
		return err
	}
	ours := 0
	for _, ip := range res.IPs {
		if ip.Interface == nil || *ip.Interface != at {
			continue
		}
		if ours++; !strings.Contains(have, " "+ip.Address.String()+" ") {
			return fmt.Errorf("the result says %s has %s; the kernel: %s", ifName, ip.Address.String(), have)
		}
	}
	if n := strings.Count(have, " inet "); ours == 0 || n != 1 {
		return fmt.Errorf("%d addresses in the result, %d IPv4 addresses in the kernel: %s", ours, n, have)
	}
	routes, err := b.Sh("ip route; ip -6 route")
	if err != nil {
		return err
	}
	for _, r := range res.Routes {
		if want := routeText(r.Dst.String()); !strings.Contains(routes, want+" ") {
			return fmt.Errorf("the result has a route to %s; the kernel: %s", r.Dst.String(), routes)
		}
	}
	return nil
}

// routeText is how ip(8) writes a destination.
func routeText(dst string) string {
	p, err := netip.ParsePrefix(dst)
	switch {
	case err != nil:
		return dst
	case p.Bits() == 0:
		return "default"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func firstPacket(ctx context.Context, w *World) error {
	for i := range 10 {
		b, err := w.Box(fmt.Sprint("c", i))
		if err != nil {
			return err
		}
		res, err := w.Add(ctx, To(b))
		if err != nil {
			return err
		}
		addr, err := addressOf(res)
		if err != nil {
			return err
		}
		// One echo, half a second, no second try.
		if _, err := w.Sh("ping -c1 -W0.5 " + addr.String()); err != nil {
			return fmt.Errorf("container %d: %w", i, err)
		}
	}
	return nil
}

func addTwice(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	first, err := w.Add(ctx, To(b))
	if err != nil {
		return err
	}
	once, err := w.Calm()
	if err != nil {
		return err
	}
	addr, err := addressOf(first)
	if err != nil {
		return err
	}
	again, err := w.Add(ctx, To(b))
	if err == nil {
		if second, err := addressOf(again); err != nil || second != addr {
			return fmt.Errorf("the second ADD gave %s after %s (%s)", second, addr, said(err))
		}
	}
	if err := w.Same(once, 3*time.Second); err != nil {
		return fmt.Errorf("after the second ADD: %w", err)
	}
	if err := w.matches(first, b, "eth0"); err != nil {
		return fmt.Errorf("after the second ADD: %w", err)
	}
	if err := w.reaches(addr); err != nil {
		return fmt.Errorf("after the second ADD: %w", err)
	}
	return w.Del(ctx, To(b))
}

func addTakenName(ctx context.Context, w *World) error {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	if _, err := b.Sh("ip link add eth0 type veth peer name other && ip addr add 198.51.100.1/24 dev eth0"); err != nil {
		return err
	}
	if _, err := w.Add(ctx, To(b)); err == nil {
		return errors.New("ADD succeeds")
	}
	if err := w.Same(before, 3*time.Second); err != nil {
		return err
	}
	have, err := b.Sh("ip -o addr show dev eth0")
	if err != nil || !strings.Contains(have, "198.51.100.1/24") {
		return fmt.Errorf("the interface that was there has %s (%s)", have, said(err))
	}
	return nil
}

func addNoNamespace(ctx context.Context, w *World) error {
	if _, err := w.Add(ctx, Call{ID: "a", NetNS: w.Dir + "/nowhere"}); err == nil {
		return errors.New("ADD succeeds")
	}
	return nil
}

func interfaces(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	var addrs []netip.Addr
	for _, ifName := range []string{"eth0", "eth1"} {
		c := To(b)
		c.IfName = ifName
		res, err := w.Add(ctx, c)
		if err != nil {
			return err
		}
		a, err := addressOf(res)
		if err != nil || slices.Contains(addrs, a) {
			return fmt.Errorf("%s has %s, taken are %v (%s)", ifName, a, addrs, said(err))
		}
		addrs = append(addrs, a)
	}
	for _, ifName := range []string{"eth1", "eth0"} {
		if err := w.reaches(addrs[0]); err != nil {
			return err
		}
		c := To(b)
		c.IfName = ifName
		if err := w.Del(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func defaultRoute(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	if _, err := b.Sh("ip link add net9 type veth peer name far9 && ip addr add 198.51.100.1/24 dev net9 && ip link set net9 up && ip link set far9 up && ip route add default via 198.51.100.2"); err != nil {
		return err
	}
	if _, err := w.Add(ctx, To(b)); err != nil {
		return err
	}
	routes, err := b.Sh("ip route show default")
	if err != nil || !strings.HasPrefix(routes, "default via 198.51.100.2 dev net9") {
		return fmt.Errorf("default routes are now %s (%s)", routes, said(err))
	}
	return nil
}

func hasInterface(links, name string) bool {
	return strings.Contains(links, " "+name+"@") || strings.Contains(links, " "+name+":")
}
