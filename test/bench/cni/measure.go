package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func (w *world) measure(ctx context.Context) (report, error) {
	ours, err1 := w.ours()
	peer, err2 := w.reference()
	if err := errors.Join(err1, err2); err != nil {
		return report{}, err
	}
	r := report{Bench: "cni", Peers: map[string]string{"reference plugins (bridge + host-local)": w.o.version}}
	pairs, grow := 100, 1000
	if w.o.short {
		pairs, grow = 30, 200
		r.Notes = append(r.Notes, "SHORT: 30 pairs, and growth over 200 containers instead of 1,000")
	}
	r.Notes = append(r.Notes, "no host port: ours has none yet, so the reference runs without portmap", "links_gone_p99_ms is not measured yet")

	// One of each first: bridge, tables and caches are made by it.
	for _, p := range []plugin{ours, peer} {
		if _, err := w.pairs(ctx, 1, p); err != nil {
			return r, err
		}
	}
	before, err := things()
	if err != nil {
		return r, err
	}
	both, err := w.pairs(ctx, pairs, ours, peer)
	if err != nil {
		return r, err
	}
	r.Add, r.AddPeer = ms(p50(both[0].add)), ms(p50(both[1].add))
	r.AddX, r.First = r.AddPeer/r.Add, both[0].first
	r.Del, r.DelX = ms(p50(both[0].del)), ms(p50(both[1].del))/ms(p50(both[0].del))
	r.CPU = ms(both[0].cpu) / float64(pairs)

	mine, err := w.parallel(ctx, ours)
	if err != nil {
		return r, err
	}
	theirs, err := w.parallel(ctx, peer)
	if err != nil {
		return r, err
	}
	r.Rate, r.RateX, r.ParP99 = mine.rate, mine.rate/theirs.rate, ms(mine.p99)
	if r.Growth, err = w.growth(ctx, ours, grow); err != nil {
		return r, err
	}
	after, err := w.settled(before)
	if err != nil {
		return r, err
	}
	if after != before {
		r.Leaks = 1
		r.Notes = append(r.Notes, "before:\n"+before+"after:\n"+after)
	}
	return r, nil
}

type times struct {
	add, del []time.Duration
	cpu      time.Duration
	first    int // first packets that did not pass within a millisecond of ADD's answer
}

// pairs does n ADD+DEL with each plugin, interleaved.
func (w *world) pairs(ctx context.Context, n int, plugins ...plugin) ([]times, error) {
	out := make([]times, len(plugins))
	for i := range n {
		for k, p := range plugins {
			if err := w.pair(ctx, p, fmt.Sprintf("s%d-%d-%d", n, i, k), &out[k]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (w *world) pair(ctx context.Context, p plugin, id string, t *times) error {
	b, err := newBox(id)
	if err != nil {
		return err
	}
	defer b.file.Close()
	before, err := w.cpu()
	if err != nil {
		return err
	}
	addr, add, err := p.add(ctx, b)
	if err != nil {
		return err
	}
	if !answers(addr) {
		t.first++
	}
	del, err := p.del(ctx, b)
	if err != nil {
		return err
	}
	after, err := w.cpu()
	t.add, t.del, t.cpu = append(t.add, add), append(t.del, del), t.cpu+after-before
	return err
}

// answers sends a SYN to a port where nobody listens: the refusal shows that the first packet went there and back.
func answers(addr string) bool {
	d := net.Dialer{Timeout: 20 * time.Millisecond}
	c, err := d.Dial("tcp", net.JoinHostPort(addr, "9"))
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

type parallel struct {
	rate float64
	p99  time.Duration
}

// parallel does 96 ADDs, 32 at a time, and then the DELs.
func (w *world) parallel(ctx context.Context, p plugin) (parallel, error) {
	const total, width = 96, 32
	boxes := make([]*box, total)
	for i := range boxes {
		var err error
		if boxes[i], err = newBox(fmt.Sprintf("p%s%d", p.name, i)); err != nil {
			return parallel{}, err
		}
		defer boxes[i].file.Close()
	}
	took, errs := make([]time.Duration, total), make([]error, total)
	each := func(do func(int)) time.Duration {
		began := time.Now()
		var wg sync.WaitGroup
		tokens := make(chan struct{}, width)
		for i := range boxes {
			tokens <- struct{}{}
			wg.Go(func() {
				do(i)
				<-tokens
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	whole := each(func(i int) { _, took[i], errs[i] = p.add(ctx, boxes[i]) })
	each(func(i int) {
		_, err := p.del(ctx, boxes[i])
		errs[i] = errors.Join(errs[i], err)
	})
	slices.Sort(took)
	return parallel{float64(total) / whole.Seconds(), took[total*99/100]}, errors.Join(errs...)
}

// growth is ADD's median over the last hundred of n containers that stay, against that over the first hundred.
func (w *world) growth(ctx context.Context, p plugin, n int) (float64, error) {
	var boxes []*box
	var took []time.Duration
	defer func() {
		for _, b := range boxes {
			_ = b.file.Close()
		}
	}()
	for i := range n {
		b, err := newBox(fmt.Sprintf("g%d", i))
		if err != nil {
			return 0, err
		}
		boxes = append(boxes, b)
		_, t, err := p.add(ctx, b)
		if err != nil {
			return 0, err
		}
		took = append(took, t)
	}
	for _, b := range boxes {
		if _, err := p.del(ctx, b); err != nil {
			return 0, err
		}
	}
	return ms(p50(took[n-100:])) / ms(p50(took[:100])), nil
}

// things is what may leak: names of links, routes, and what the reference's chains leave.
func things() (string, error) {
	out, err := sh("ip -o link show | sed 's/^[0-9]*: \\([^:@]*\\).*/link \\1/' | sort; ip route | sed 's/ linkdown//'")
	return out, err
}

// settled waits until nothing more goes away.
func (w *world) settled(want string) (string, error) {
	var got string
	var err error
	for range 100 {
		if got, err = things(); err != nil || got == want {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return strings.ReplaceAll(got, os.TempDir(), ""), err
}

func p50(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
