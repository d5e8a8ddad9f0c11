package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func (w *world) measure(ctx context.Context) (report, error) {
	r := report{Bench: "cni", Notes: []string{}}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.LoadAvg, _, _ = strings.Cut(string(text), " ")
	}
	ours, err := w.ours()
	if err != nil {
		return r, err
	}
	pairs, each, grow, edge, execs := 100, 96, 1000, 100, 200
	r.Foreign = 200000
	if w.o.short {
		pairs, each, grow, edge, execs, r.Foreign = 8, 32, 200, 50, 40, 20000
		r.Notes = append(r.Notes, "SHORT: 8 pairs, 32 in parallel once, growth over 200 containers, 20,000 foreign connections")
	}
	peer, err := w.better(ctx, &r)
	if err != nil {
		return r, err
	}
	// One of each first: bridge, tables and caches are made by it.
	if _, err := w.pairs(ctx, 2, ours); err != nil {
		return r, err
	}
	before, err := w.settled("")
	if err != nil {
		return r, err
	}
	both, err := w.pairs(ctx, pairs, ours, peer)
	if err != nil {
		return r, err
	}
	r.Add, r.AddPeer = ms(p50(both[0].add)), ms(p50(both[1].add))
	r.AddX, r.First, r.Late, r.Open = r.AddPeer/r.Add, both[0].first, both[0].late, both[0].open
	r.Del, r.DelX = ms(p50(both[0].del)), ms(p50(both[1].del))/ms(p50(both[0].del))
	r.CPU = ms(both[0].cpu) / float64(pairs)
	gone := ms(percentile(both[0].gone, 99))
	r.Gone = &gone
	r.Notes = append(r.Notes, fmt.Sprintf("ADD p99 %.1f ms, peer %.1f; DEL p99 %.1f ms, peer %.1f; the peer's first packets failed %d times, passed after DEL %d times",
		ms(percentile(both[0].add, 99)), ms(percentile(both[1].add, 99)), ms(percentile(both[0].del, 99)), ms(percentile(both[1].del, 99)), both[1].first, both[1].open))

	mine, err := w.parallel(ctx, ours, each)
	if err != nil {
		return r, err
	}
	theirs, err := w.parallel(ctx, peer, each)
	if err != nil {
		return r, err
	}
	r.Rate, r.RateX, r.ParP99 = mine.rate, mine.rate/theirs.rate, ms(mine.p99)
	if r.Growth, r.RSS, err = w.growth(ctx, ours, grow, edge); err != nil {
		return r, err
	}
	if r.Start, r.Size, err = w.starts(ctx, execs); err != nil {
		return r, err
	}
	if r.Sync, err = w.fdatasync(); err != nil {
		return r, err
	}
	if err := w.crowded(ctx, ours, &r); err != nil {
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

// better is the reference with the backend that adds faster here.
func (w *world) better(ctx context.Context, r *report) (plugin, error) {
	var best plugin
	var least time.Duration
	for i, backend := range []string{"iptables", "nftables"} {
		p, err := w.reference(backend, 88+i)
		if err != nil {
			return p, err
		}
		t, err := w.pairs(ctx, 3, p)
		if err != nil {
			r.Notes = append(r.Notes, "reference with "+backend+": "+err.Error())
			continue
		}
		r.Notes = append(r.Notes, fmt.Sprintf("reference with %s: ADD %.1f ms", backend, ms(p50(t[0].add))))
		if best.cni == nil || p50(t[0].add) < least {
			best, least = p, p50(t[0].add)
		}
	}
	if best.cni == nil {
		return best, fmt.Errorf("no backend of the reference works: %v", r.Notes)
	}
	r.Peers = map[string]string{"reference plugins (bridge + host-local + portmap, " + best.name + ")": w.o.version}
	return best, nil
}

type times struct {
	add, del, gone []time.Duration
	cpu            time.Duration
	first          int // first packets that did not pass after ADD's answer
	late           int // first packets that were sent later than a millisecond after it
	open           int // first packets that passed after DEL's answer
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
	defer b.end()
	if err := b.listen(); err != nil {
		return err
	}
	before, err := w.cpu()
	if err != nil {
		return err
	}
	got, add, err := p.add(ctx, b)
	answered := time.Now()
	if err != nil {
		return err
	}
	first, late := w.knock(b, got.addr, answered, 700*time.Millisecond)
	t.first, t.late = t.first+3-first, t.late+late
	del, err := p.del(ctx, b)
	answered = time.Now()
	if err != nil {
		return err
	}
	gone := make(chan time.Duration)
	go func() { gone <- vanishes(got.link, answered) }()
	passed, _ := w.knock(b, got.addr, answered, 30*time.Millisecond)
	t.open += passed
	took := <-gone
	after, err := w.cpu()
	t.add, t.del, t.gone, t.cpu = append(t.add, add), append(t.del, del), append(t.gone, took), t.cpu+after-before
	return err
}

type parallel struct {
	rate float64
	p99  time.Duration
}

// parallel does so many ADDs, 32 at a time, and then the DELs.
func (w *world) parallel(ctx context.Context, p plugin, total int) (parallel, error) {
	const width = 32
	boxes := make([]*box, total)
	for i := range boxes {
		var err error
		if boxes[i], err = newBox(fmt.Sprintf("p%s%d", p.name, i)); err != nil {
			return parallel{}, err
		}
		defer boxes[i].end()
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
	return parallel{float64(total) / whole.Seconds(), percentile(took, 99)}, errors.Join(errs...)
}

// growth is ADD's median over the last edge of n containers that stay, against that over the first; and what memory the
// agent has more with 200 of them.
func (w *world) growth(ctx context.Context, p plugin, n, edge int) (growth, rss float64, err error) {
	var boxes []*box
	var took []time.Duration
	defer func() {
		for _, b := range boxes {
			b.end()
		}
	}()
	for i := range n {
		b, err := newBox(fmt.Sprintf("g%d", i))
		if err != nil {
			return 0, 0, err
		}
		boxes = append(boxes, b)
		_, t, err := p.add(ctx, b)
		if err != nil {
			return 0, 0, err
		}
		took = append(took, t)
		if i == 199 {
			full, err := w.rss()
			if err != nil {
				return 0, 0, err
			}
			rss = full - w.idle
		}
	}
	for _, b := range boxes {
		if _, err := p.del(ctx, b); err != nil {
			return 0, 0, err
		}
	}
	return ms(p50(took[n-edge:])) / ms(p50(took[:edge])), rss, nil
}

// things is what ours may leak: links, routes, elements of its tables, leases.
func (w *world) things() (string, error) {
	out, err := sh(`ip -o link show | sed 's/^[0-9]*: \([^:@]*\).*/link \1/' | grep -v ' cni-bench' | sort; ip route | grep -v ' cni-bench' | sed 's/ linkdown//'
		for t in $(nft list tables | sed -n 's/^table \([^ ]*\) \(fairlead[^ ]*\)$/\1:\2/p'); do
			nft list table ${t%:*} ${t#*:} | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/g; s/ expires [0-9a-z]+//g'; done`)
	if err != nil {
		return "", err
	}
	leases, err := exec.Command(filepath.Join(w.o.bin, "fairlead"), "net", "ls", "--json", "--socket", filepath.Join(w.dir, "run/agent.sock")).Output()
	return out + string(leases), err
}

// settled waits until things are as wanted, or with "" until they no longer change.
func (w *world) settled(want string) (got string, err error) {
	for range 100 {
		now, err := w.things()
		if err != nil || now == want || want == "" && now == got {
			return now, err
		}
		got = now
		time.Sleep(50 * time.Millisecond)
	}
	return got, nil
}

func p50(d []time.Duration) time.Duration { return percentile(d, 50) }

func percentile(d []time.Duration, n int) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)*n/100]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
