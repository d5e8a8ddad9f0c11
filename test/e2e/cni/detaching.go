package cni

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

var detaching = []Case{
	{Name: "del", Says: "after DEL's answer no packet passes, and the host is as before", Run: leavesNothing(3*time.Second, del)},
	{Name: "del-without-add", Says: "DEL of what was never added succeeds and leaves nothing", Run: leavesNothing(3*time.Second, delWithoutAdd)},
	{Name: "del-twice", Says: "a second DEL succeeds", Run: leavesNothing(3*time.Second, delTwice)},
	{Name: "del-namespace-gone", Says: "DEL succeeds and leaves nothing when the namespace is gone, named or not", Run: delNamespaceGone},
	{Name: "del-link-gone", Says: "DEL succeeds and leaves nothing when somebody has removed the container's interface", Run: leavesNothing(3*time.Second, delLinkGone)},
	{Name: "del-down", Says: "a DEL while the daemon is down succeeds, and is done when it is up", Daemon: true, Run: leavesNothing(5*time.Second, delDown)},
	{Name: "add-again", Says: "a container that was taken off is attached again in the same namespace, ten times", Run: leavesNothing(3*time.Second, addAgain)},
	{Name: "conntrack", Says: "after DEL no connection of the container is tracked", Run: conntrack},
}

func (w *World) attached(ctx context.Context, id string) (*Box, error) {
	b, err := w.Box(id)
	if err == nil {
		_, err = w.Add(ctx, To(b))
	}
	return b, err
}

// addressed is attached, with the address.
func (w *World) addressed(ctx context.Context, id string) (*Box, netip.Addr, error) {
	b, err := w.Box(id)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	res, err := w.Add(ctx, To(b))
	if err != nil {
		return nil, netip.Addr{}, err
	}
	addr, err := addressOf(res)
	return b, addr, err
}

func del(ctx context.Context, w *World) error {
	b, addr, err := w.addressed(ctx, "a")
	if err != nil {
		return err
	}
	if err := w.reaches(addr); err != nil {
		return err
	}
	if err := w.Del(ctx, To(b)); err != nil {
		return err
	}
	if w.reaches(addr) == nil {
		return fmt.Errorf("%s answers after DEL", addr)
	}
	return nil
}

func delWithoutAdd(ctx context.Context, w *World) error {
	b, err := w.Box("never")
	if err != nil {
		return err
	}
	return w.Del(ctx, To(b))
}

func delTwice(ctx context.Context, w *World) error {
	b, err := w.attached(ctx, "a")
	if err != nil {
		return err
	}
	for range 2 {
		if err := w.Del(ctx, To(b)); err != nil {
			return err
		}
	}
	return nil
}

func delNamespaceGone(ctx context.Context, w *World) error {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	for _, named := range []bool{true, false} {
		b, err := w.attached(ctx, "a")
		if err != nil {
			return err
		}
		b.End()
		c := To(b)
		if c.NetNS = w.Dir + "/gone"; !named {
			c.NetNS = ""
		}
		if err := w.Del(ctx, c); err != nil {
			return fmt.Errorf("namespace named: %v: %w", named, err)
		}
		if err := w.Same(before, 3*time.Second); err != nil {
			return fmt.Errorf("namespace named: %v: %w", named, err)
		}
	}
	return nil
}

func delLinkGone(ctx context.Context, w *World) error {
	b, err := w.attached(ctx, "a")
	if err != nil {
		return err
	}
	if _, err := b.Sh("ip link del eth0"); err != nil {
		return err
	}
	return w.Del(ctx, To(b))
}

func delDown(ctx context.Context, w *World) error {
	b, err := w.attached(ctx, "a")
	if err != nil {
		return err
	}
	if err := w.crash(); err != nil {
		return err
	}
	if err := w.Del(ctx, To(b)); err != nil {
		return err
	}
	return w.start(ctx)
}

func addAgain(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	for i := range 10 {
		res, err := w.Add(ctx, To(b))
		if err != nil {
			return fmt.Errorf("time %d: %w", i, err)
		}
		if err := w.matches(res, b, "eth0"); err != nil {
			return fmt.Errorf("time %d: %w", i, err)
		}
		if err := w.Del(ctx, To(b)); err != nil {
			return fmt.Errorf("time %d: %w", i, err)
		}
	}
	return nil
}

// conntrack sends from the container through the host, so that the host tracks it, with state that lives for minutes.
func conntrack(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	// Tracking is on in a namespace when a rule asks for it.
	if _, err := w.Sh("nft add table inet suite && nft 'add chain inet suite f { type filter hook forward priority 0; }' && nft add rule inet suite f ct state established accept && sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600"); err != nil {
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
	if _, err := b.Sh("echo x >/dev/udp/192.0.2.1/9999 2>/dev/null || bash -c 'echo x >/dev/udp/192.0.2.1/9999'"); err != nil {
		return err
	}
	tracked := func() (string, error) {
		return w.Sh("conntrack -L -p udp 2>/dev/null | grep '" + addr.String() + " ' || true")
	}
	if t, err := tracked(); err != nil || t == "" {
		return fmt.Errorf("no connection was tracked, so this case shows nothing (%s)", said(err))
	}
	if err := w.Del(ctx, To(b)); err != nil {
		return err
	}
	var left string
	for range 60 {
		if left, err = tracked(); err != nil || left == "" {
			return err
		}
		time.Sleep(50 * time.Millisecond) // there is no event for it
	}
	return fmt.Errorf("still tracked: %s", left)
}
