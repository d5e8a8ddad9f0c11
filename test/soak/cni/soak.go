package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	cni "github.com/fairlead-dev/fairlead/test/e2e/cni"
	"github.com/fairlead-dev/fairlead/test/e2e/cni/drivers"
)

// place is where somebody dies.
type place struct {
	who  string // "agent" or "plugin"
	at   string // "ADD:7"
	name string // what was done just before
}

func (p place) String() string { return p.who + " " + p.at + " " + p.name }

func (p place) command() string {
	command, _, _ := strings.Cut(p.at, ":")
	return command
}

// host is the soak's world.
type host struct {
	*cni.World
	ctx    context.Context
	env    *[]string // of the next agent
	agent  *drivers.Process
	before string
	n      int
}

// soak kills so often in all, each place as often as the others, and once at least; 20 times at least when kills is
// not 0.
func soak(ctx context.Context, kills, at int) (out result, bad []string, err error) {
	out = result{Soak: "cni", ByPlace: map[string]int{}, Parallel: at}
	bin, err := build(ctx)
	if err != nil {
		return out, nil, err
	}
	if os.Getenv("FAIRLEAD_CRASH_BIN") == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	}
	var env []string
	plugin := drivers.FairleadWith(bin, func() []string { return env })
	w, err := cni.NewWorld(plugin)
	if err != nil {
		return out, nil, err
	}
	h := &host{World: w, ctx: ctx, env: &env}
	defer func() {
		if h.agent != nil {
			err = errors.Join(err, h.agent.Stop())
		}
		err = errors.Join(err, w.Close())
	}()
	places, err := h.places()
	if err != nil {
		return out, nil, fmt.Errorf("find places: %w", err)
	}
	each := 1
	if kills > 0 {
		each = max(20, (kills+len(places)-1)/len(places))
	}
	out.Places = len(places)
	fmt.Printf("%d places, %d kills at each\n", len(places), each)
	if err := h.restart(""); err != nil {
		return out, nil, err
	}
	if h.before, err = h.Calm(); err != nil {
		return out, nil, err
	}
	for _, p := range places {
		left := 0
		for range each {
			if ctx.Err() != nil {
				return out, bad, ctx.Err()
			}
			died, err := h.round(p)
			switch {
			case err != nil:
				left++
				bad = append(bad, fmt.Sprintf("%s: %v", p, err))
			case !died:
				out.Missed++
			}
			if died {
				out.Kills++
				out.ByPlace[p.String()]++
			}
		}
		out.Left += left
		fmt.Printf("%-50s killed %d times, %d left something\n", p, out.ByPlace[p.String()], left)
	}
	out.FewestKills = each
	for _, p := range places {
		out.FewestKills = min(out.FewestKills, out.ByPlace[p.String()])
	}
	out.Rounds = 1
	if err := h.parallel(at); err != nil {
		out.Residue = 1
		bad = append(bad, fmt.Sprintf("%d at once: %v", at, err))
	}
	return out, bad, nil
}

// places runs one ADD and one DEL with logs, and reads there what they pass.
func (h *host) places() ([]place, error) {
	logs := map[string]string{"agent": filepath.Join(h.Dir, "agent.places"), "plugin": filepath.Join(h.Dir, "plugin.places")}
	*h.env = []string{"FAIRLEAD_CRASH_LOG=" + logs["agent"]}
	if err := h.start(); err != nil {
		return nil, err
	}
	// The second round knows what the first of an agent's life did once.
	for _, first := range []bool{true, false} {
		for _, l := range logs {
			if err := os.WriteFile(l, nil, 0o600); err != nil {
				return nil, err
			}
		}
		b, c, err := h.container()
		if err != nil {
			return nil, err
		}
		if !first {
			c.Env = []string{"FAIRLEAD_CRASH_LOG=" + logs["plugin"]}
		}
		if _, err := h.Add(h.ctx, c); err != nil {
			return nil, err
		}
		if err := h.Del(h.ctx, c); err != nil {
			return nil, err
		}
		if _, err := h.Calm(); err != nil { // what follows the answer is a part of DEL
			return nil, err
		}
		b.End()
	}
	var out []place
	for who, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			at, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			if p := (place{who, at, name}); p.command() == "ADD" || p.command() == "DEL" {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.who, b.who), cmp.Compare(a.command(), b.command()), cmp.Compare(a.number(), b.number()))
	})
	if len(out) < 20 {
		return nil, fmt.Errorf("only %v", out)
	}
	return out, nil
}

func (p place) number() int {
	_, n, _ := strings.Cut(p.at, ":")
	i, _ := strconv.Atoi(n) // package crash writes a number
	return i
}

// container is a new one with a host port of UDP, so that every kind of state is made for it.
func (h *host) container() (*cni.Box, cni.Call, error) {
	h.n++
	b, err := h.Box(fmt.Sprint("soak", h.n))
	if err != nil {
		return nil, cni.Call{}, err
	}
	c := cni.To(b)
	c.Caps = map[string]any{"portMappings": []map[string]any{{"hostPort": 18053, "containerPort": 53, "protocol": "udp"}, {"hostPort": 18080, "containerPort": 80}}}
	return b, c, nil
}

// restart ends the agent and starts one that dies at a place, or none.
func (h *host) restart(at string) error {
	if h.agent != nil {
		if err := h.agent.Stop(); err != nil {
			return err
		}
	}
	*h.env = nil
	if at != "" {
		*h.env = []string{"FAIRLEAD_CRASH_AT=" + at}
	}
	return h.start()
}

func (h *host) start() error {
	d, err := h.Start(h.ctx, h.Host)
	if err == nil {
		h.agent = d.(*drivers.Process)
	}
	return err
}

// round lets one die at p, takes the namespace away, and looks whether the host becomes as before.
func (h *host) round(p place) (died bool, err error) {
	if p.who == "agent" {
		if err := h.restart(p.at); err != nil {
			return false, err
		}
	}
	b, c, err := h.container()
	if err != nil {
		return false, err
	}
	defer b.End()
	armed := c
	if p.who == "plugin" {
		armed.Env = []string{"FAIRLEAD_CRASH_AT=" + p.at}
	}
	var res *types100.Result
	if p.command() == "ADD" {
		res, err = h.Add(h.ctx, armed)
	} else {
		if res, err = h.Add(h.ctx, c); err != nil {
			return false, err
		}
		h.talk(b)
		err = h.Del(h.ctx, armed)
	}
	if p.who == "plugin" {
		// One that has printed its whole answer gives libcni that for an error.
		died = err != nil && (p.name == "printed" || strings.Contains(err.Error(), "signal: killed"))
	} else {
		select {
		case <-h.agent.Done():
			died = true
		case <-time.After(500 * time.Millisecond): // the place may lie behind the answer
		}
	}
	b.End()
	if p.who == "agent" && died {
		h.agent = nil
		if err := h.restart(""); err != nil {
			return died, err
		}
	}
	if err := h.Same(h.before, 30*time.Second); err != nil {
		return died, err
	}
	return died, h.untracked(res)
}

// talk makes connections through the host: one that the container begins, one to its host port.
func (h *host) talk(b *cni.Box) {
	_, _ = b.Sh("bash -c 'echo x >/dev/udp/192.0.2.1/9999'") // nobody answers, and nobody needs to
	_, _ = h.Sh("bash -c 'echo x >/dev/udp/" + cni.Uplink + "/18053'")
}

// untracked waits until no connection of the container is tracked.
func (h *host) untracked(res *types100.Result) error {
	if res == nil || len(res.IPs) == 0 {
		return nil
	}
	addr, ok := netip.AddrFromSlice(res.IPs[0].Address.IP)
	if !ok {
		return nil
	}
	var left string
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		var err error
		if left, err = h.Sh("conntrack -L 2>/dev/null | grep '=" + addr.Unmap().String() + " ' || true"); err != nil || left == "" {
			return err
		}
	}
	return fmt.Errorf("connections are left: %s", left)
}

// parallel adds and removes n containers at once.
func (h *host) parallel(n int) error {
	if err := h.restart(""); err != nil {
		return err
	}
	before, err := h.Calm()
	if err != nil {
		return err
	}
	boxes, errs := make([]*cni.Box, n), make([]error, n)
	for i := range boxes {
		if boxes[i], err = h.Box(fmt.Sprint("parallel", i)); err != nil {
			return err
		}
		defer boxes[i].End()
	}
	each := func(do func(cni.Call) error) error {
		var wg sync.WaitGroup
		for i, b := range boxes {
			wg.Go(func() { errs[i] = do(cni.To(b)) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	err = each(func(c cni.Call) error { _, err := h.Add(h.ctx, c); return err })
	if err == nil {
		err = each(func(c cni.Call) error { return h.Del(h.ctx, c) })
	}
	if err != nil {
		return err
	}
	return h.Same(before, 10*time.Second)
}
