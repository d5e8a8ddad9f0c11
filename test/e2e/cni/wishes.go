package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

var wishes = []Case{
	{Name: "ip-args", Says: "CNI_ARGS IP= gives that address, beside keys to be ignored", Run: fixed(func(addr string) Call {
		return Call{Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "a"}, {"IP", addr}}}
	})},
	{Name: "ip-capability", Says: "the capability ips gives that address", Run: fixed(func(addr string) Call {
		return Call{Caps: map[string]any{"ips": []string{addr}}}
	})},
	{Name: "ip-taken", Says: "an address that another container has is refused, and his stays", Run: ipTaken},
	{Name: "mac", Says: "the capability mac gives that MAC, and packets pass", Run: mac},
	{Name: "port", Says: "the capability portMappings leads a port of the host to the container, and DEL takes it away", Run: port},
}

func fixed(ask func(addr string) Call) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		b, err := w.Box("a")
		if err != nil {
			return err
		}
		want := w.Fixed(1)
		c := ask(want)
		c.ID, c.NetNS = b.ID, b.Path
		res, err := w.Add(ctx, c)
		if err != nil {
			return err
		}
		got, err := addressOf(res)
		if host, _, _ := strings.Cut(want, "/"); err != nil || got.String() != host {
			return fmt.Errorf("asked for %s, got %s (%s)", host, got, said(err))
		}
		if err := w.matches(res, b, "eth0"); err != nil {
			return err
		}
		return w.reaches(got)
	}
}

func ipTaken(ctx context.Context, w *World) error {
	caps := map[string]any{"ips": []string{w.Fixed(1)}}
	var boxes []*Box
	var first *types100.Result
	var once string
	for _, id := range []string{"a", "b"} {
		b, err := w.Box(id)
		if err != nil {
			return err
		}
		boxes = append(boxes, b)
		c := To(b)
		c.Caps = caps
		res, err := w.Add(ctx, c)
		switch {
		case id == "a" && err != nil:
			return err
		case id == "b" && err == nil:
			return errors.New("the address is given twice")
		case id == "a":
			first = res
			if once, err = w.Calm(); err != nil {
				return err
			}
		}
	}
	// A runtime follows a failed ADD with DEL.
	if err := w.Del(ctx, To(boxes[1])); err != nil {
		return err
	}
	if err := w.Same(once, 3*time.Second); err != nil {
		return fmt.Errorf("after the refusal: %w", err)
	}
	return w.matches(first, boxes[0], "eth0")
}

func mac(ctx context.Context, w *World) error {
	const want = "02:00:5e:10:20:30"
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	c := To(b)
	c.Caps = map[string]any{"mac": want}
	res, err := w.Add(ctx, c)
	if err != nil {
		return err
	}
	link, err := b.Sh("ip -o link show eth0")
	if err != nil || !strings.Contains(link, want) {
		return fmt.Errorf("asked for %s: %s (%s)", want, link, said(err))
	}
	if err := w.matches(res, b, "eth0"); err != nil {
		return err
	}
	addr, err := addressOf(res)
	if err != nil {
		return err
	}
	return w.reaches(addr)
}

func port(ctx context.Context, w *World) error {
	b, err := w.Box("a")
	if err != nil {
		return err
	}
	c := To(b)
	c.Caps = map[string]any{"portMappings": []map[string]any{{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}}}
	// Once before: what a plugin makes with the first port, and keeps, is no leak.
	if _, err := w.Add(ctx, c); err != nil {
		return err
	}
	if err := w.Del(ctx, c); err != nil {
		return err
	}
	before, err := w.Calm()
	if err != nil {
		return err
	}
	if _, err := w.Add(ctx, c); err != nil {
		return err
	}
	// Nobody listens in the container. Its kernel refuses; the host alone, without the mapping, would refuse as well, so
	// the container's own count of refused connections tells.
	count := func() (string, error) {
		return b.Sh("nstat -asz TcpInSegs TcpOutRsts 2>/dev/null | awk '/TcpOutRsts/ {print $2}'")
	}
	was, err := count()
	if err != nil {
		return err
	}
	_, _ = w.Sh("bash -c 'exec 3<>/dev/tcp/" + Uplink + "/18080'") // refused
	now, err := count()
	if err != nil || now == was {
		return fmt.Errorf("port 18080 of the host does not lead to the container (%s, then %s; %s)", was, now, said(err))
	}
	if err := w.Del(ctx, c); err != nil {
		return err
	}
	return w.Same(before, 5*time.Second)
}
