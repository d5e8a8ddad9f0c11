package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

var checking = []Case{
	{Name: "check", Says: "CHECK is silent right after ADD, with prevResult from the runtime", Run: checkWell},
	{Name: "check-without-add", Says: "CHECK of what was never added fails", Run: checkWithoutAdd},
	tampered("check-address", "an address that was removed", `ip addr del $(ip -o -4 addr show eth0 | awk '{print $4}') dev eth0`, func(t tamper) string { return t.addr }),
	tampered("check-route", "a route that was removed", "ip route del default", func(tamper) string { return "0.0.0.0|default" }),
	tampered("check-link", "an interface that was removed", "ip link del eth0", func(tamper) string { return "eth0" }),
	tampered("check-down", "an interface that was set down", "ip link set eth0 down", func(tamper) string { return "eth0" }),
	tampered("check-mtu", "an MTU that was changed", "ip link set eth0 mtu 1298", func(tamper) string { return "1298" }),
	tampered("check-mac", "a MAC that was changed", "ip link set eth0 address 02:00:00:00:12:98", func(tamper) string { return "02:00:00:00:12:98" }),
	tampered("check-neighbour", "a permanent neighbour that was removed", "ip neigh show nud permanent | while read addr dev name lladdr mac rest; do ip neigh del $addr dev $name; done", func(tamper) string { return "neighbour|neighbor" }),
	{Name: "check-host-route", Says: "CHECK names the host's route to the container when it was removed, unless it is put right", Run: checkHost("ip route del ADDR 2>/dev/null || ip route del $(ip route get ADDR | awk '{print $3; exit}' | xargs -I@ ip route show dev @ | awk '{print $1; exit}')", "route")},
	{Name: "check-rules", Says: "CHECK says when somebody has flushed the firewall, unless it is put right", Run: checkHost("nft flush ruleset", "")},
}

// tamper is what a test of tampering knows.
type tamper struct{ addr string }

func checkWell(ctx context.Context, w *World) error {
	b, err := w.attached(ctx, "a")
	if err != nil {
		return err
	}
	return w.check(ctx, To(b))
}

func checkWithoutAdd(ctx context.Context, w *World) error {
	b, err := w.attached(ctx, "a")
	if err != nil {
		return err
	}
	text, err := w.single(fmt.Sprintf(`"prevResult":{"cniVersion":%q,"interfaces":[{"name":"eth0","sandbox":%q}],"ips":[{"address":"198.51.100.9/24","interface":0}]},`, Newest, b.Path))
	if err != nil {
		return err
	}
	other, err := w.Box("other")
	if err != nil {
		return err
	}
	code, out, err := w.raw(ctx, text, "CNI_COMMAND=CHECK", "CNI_CONTAINERID=other", "CNI_IFNAME=eth0", "CNI_NETNS="+other.Path)
	if err != nil {
		return err
	}
	if code == 0 {
		return fmt.Errorf("CHECK succeeds: %s", out)
	}
	return nil
}

// tampered makes a case in which a script in the container damages something that CHECK must name.
func tampered(name, what, script string, named func(tamper) string) Case {
	return Case{Name: name, Says: "CHECK names " + what, Run: func(ctx context.Context, w *World) error {
		b, err := w.Box("a")
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
		was, err := b.Sh("ip neigh show nud permanent")
		if err != nil {
			return err
		}
		if strings.Contains(script, "ip neigh") && was == "" {
			return nil // the plugin makes none
		}
		if err := w.check(ctx, To(b)); err != nil {
			return fmt.Errorf("before: %w", err)
		}
		if _, err := b.Sh(script); err != nil {
			return err
		}
		return names(w.check(ctx, To(b)), named(tamper{addr.String()}))
	}}
}

// names tells whether an error holds one of the words.
func names(err error, words string) error {
	if err == nil {
		return errors.New("CHECK finds nothing")
	}
	for word := range strings.SplitSeq(words, "|") {
		if strings.Contains(err.Error(), word) {
			return nil
		}
	}
	return fmt.Errorf("CHECK does not say %q: %w", words, err)
}

// checkHost makes a case in which a script damages the host. A daemon may be quicker than CHECK: then it has put it
// right.
func checkHost(script, named string) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		b, err := w.Box("a")
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
		before, err := w.Calm()
		if err != nil {
			return err
		}
		if err := w.check(ctx, To(b)); err != nil {
			return fmt.Errorf("before: %w", err)
		}
		if _, err := w.Sh(strings.ReplaceAll(script, "ADDR", addr.String())); err != nil {
			return err
		}
		if now, err := w.all(); err != nil || now == before {
			if script != "nft flush ruleset" || strings.Contains(before, "nft ") {
				return err // put right already
			}
			return nil // there are no rules to lose
		}
		if err := names(w.check(ctx, To(b)), named); err == nil {
			return nil
		}
		if err := w.Same(before, 2*time.Second); err != nil {
			return fmt.Errorf("neither named by CHECK nor put right: %w", err)
		}
		return w.check(ctx, To(b))
	}
}
