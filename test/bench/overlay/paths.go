package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// path is a way from one place to another, with what was measured on it, a value a round.
type path struct {
	name     string
	from, to *namespace
	addr     string // of to

	tcp  []float64 // bits a second
	cost []float64 // of a packet in nanoseconds of CPU, which other work on the machine disturbs less
	pps  []float64 // packets a second that arrived
	sent []float64 // packets a second that were sent
	rtt  []float64 // median of a round's trips, microseconds
	mean []float64

	tcpPerCPU []float64 // bits a second of CPU of both ends
}

// measure takes turns: each path once in each round, so that what else the machine does meets all of them.
func measure(ctx context.Context, paths []*path, rounds int, each time.Duration, trips int) error {
	for i := range rounds {
		for k := range paths {
			p := paths[(i+k)%len(paths)]
			for what, f := range map[string]func() error{
				"TCP":         func() error { return p.stream(ctx, each) },
				"packets":     func() error { return p.flood(ctx, each/2) },
				"round trips": func() error { return p.ping(ctx, trips) },
			} {
				if err := f(); err != nil {
					return fmt.Errorf("%s, %s: %w", p.name, what, err)
				}
			}
		}
	}
	return nil
}

// Where a scheduler may choose processors, results have two peaks. Two hosts have processors of their own: who sends is on
// the first, who receives on the other. Round trips are on one, as waking another costs more than the whole way.
const one = "0"

func other() string { return strconv.Itoa(min(1, runtime.NumCPU()-1)) }

func pinned(cpu string, argv ...string) []string {
	return append([]string{"taskset", "-c", cpu}, argv...)
}

// stream is one TCP connection, by iperf3.
func (p *path) stream(ctx context.Context, lasting time.Duration) error {
	server := p.to.command(ctx, pinned(other(), "iperf3", "-s", "-B", p.addr)...)
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		_ = server.Cancel()
		_ = server.Wait() // it says that it was told to end
	}()
	return until(ctx, "iperf3", 10*time.Second, func() (bool, error) { // until it listens, and has had its turn on a busy machine
		text, err := p.from.output(ctx, pinned(one, "iperf3", "-c", p.addr, "-J", "-t", strconv.Itoa(int(lasting.Seconds())))...)
		if err != nil {
			return false, err
		}
		var r struct {
			End struct {
				Received struct {
					Bits float64 `json:"bits_per_second"`
				} `json:"sum_received"`
				CPU struct {
					Host   float64 `json:"host_total"`
					Remote float64 `json:"remote_total"`
				} `json:"cpu_utilization_percent"`
			} `json:"end"`
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return false, err
		}
		if r.End.Received.Bits == 0 || r.End.CPU.Host+r.End.CPU.Remote == 0 {
			return false, errors.New("nothing arrived in time")
		}
		p.tcp = append(p.tcp, r.End.Received.Bits)
		p.tcpPerCPU = append(p.tcpPerCPU, r.End.Received.Bits/(r.End.CPU.Host+r.End.CPU.Remote)*100)
		return true, nil
	})
}

// flood is small packets, one way.
func (p *path) flood(ctx context.Context, lasting time.Duration) error {
	var sent, got packets
	if err := p.both(ctx, other(), "sink", &got, &sent, "flood", "-for", lasting.String()); err != nil {
		return err
	}
	p.pps, p.sent = append(p.pps, got.rate()), append(p.sent, sent.rate())
	p.cost = append(p.cost, float64(sent.CPU.Nanoseconds())/float64(sent.N))
	return nil
}

// ping is one small packet to and fro.
func (p *path) ping(ctx context.Context, n int) error {
	var t trips
	if err := p.both(ctx, one, "echo", nil, &t, "ping", "-n", strconv.Itoa(n)); err != nil {
		return err
	}
	p.rtt, p.mean = append(p.rtt, t.P50), append(p.mean, t.Mean)
	return nil
}

// both starts the one that listens, at a processor, runs the one that sends, and reads what each has to say. A listener of which
// nothing is wanted is ended.
func (p *path) both(ctx context.Context, at, listen string, heard, said any, send string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	listener := p.to.command(ctx, pinned(at, self, listen, "-addr", p.addr)...)
	listener.Stderr = os.Stderr
	out, err := listener.StdoutPipe()
	if err != nil {
		return err
	}
	end, err := listener.StdinPipe()
	if err != nil {
		return err
	}
	if err := listener.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n') // it listens
	if err == nil {
		var text string
		text, err = p.from.output(ctx, pinned(one, append([]string{self, send, "-addr", p.addr}, args...)...)...)
		if err == nil {
			err = json.Unmarshal([]byte(text), said)
		}
	}
	if heard == nil || err != nil {
		_ = listener.Cancel()
		_ = listener.Wait()
		return err
	}
	if err := errors.Join(end.Close(), json.NewDecoder(lines).Decode(heard)); err != nil {
		return err
	}
	return listener.Wait()
}

// ratio is the median of what a is to b in the same round.
func ratio(a, b []float64) float64 {
	var out []float64
	for i := range a {
		out = append(out, a[i]/b[i])
	}
	return median(out)
}

// over is the median of what a is more than b in the same round.
func over(a, b []float64) float64 {
	var out []float64
	for i := range a {
		out = append(out, a[i]-b[i])
	}
	return median(out)
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
