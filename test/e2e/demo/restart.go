package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// streamWindow is how many lines of a stream a syslog receiver may get twice when the agent is killed between the
// kernel's taking a batch and the agent's noting it: a quarter of a second of the load's 200 lines a second. TCP syslog
// has no acknowledgement that could tell (RFC 6587); the figure is printed, and is 0 in nearly every run.
const streamWindow = 50

// restart kills both agents under load and starts them again, the first with one more sink in its configuration and
// with the tail of its journal cut off. Nothing of the load may notice, and no kernel object may be written.
func (d *Demo) restart(ctx context.Context) (string, error) {
	load, err := d.startLoad(ctx)
	if err != nil {
		return "", err
	}
	if err := pause(ctx, time.Second); err != nil {
		return "", err
	}
	watch, err := d.watchKernel(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range d.nodes {
		if err := n.agent.kill(); err != nil {
			return "", err
		}
	}
	down := time.Now()
	first := d.nodes[0]
	cut, err := cutTail(first.Path("/var/lib/fairlead/overlay/journal"))
	if err != nil {
		return "", err
	}
	first.extra = true
	if err := first.configure(); err != nil {
		return "", err
	}
	if err := pause(ctx, time.Second); err != nil {
		return "", err
	}
	if err := d.each(func(n *Node) error { _, err := n.startAgent(ctx); return err }); err != nil {
		return "", err
	}
	gone := time.Since(down)
	// What an agent does late must be seen too.
	if err := pause(ctx, 2*time.Second); err != nil {
		return "", err
	}
	changes, err := watch.end()
	if err != nil {
		return "", err
	}
	result, err := load.end()
	if err != nil {
		return "", err
	}
	if len(changes) > 0 {
		return "", fmt.Errorf("the restart changed %d things in the kernel:\n%s", len(changes), strings.Join(changes, "\n"))
	}
	twice := 0
	for _, n := range d.nodes {
		want := n.burstCounts()
		for stream, lines := range result.lines {
			if strings.HasPrefix(stream, n.Name+"/") {
				want[stream] = lines
			}
		}
		if _, err := n.arrived(ctx, want, exactlyOnce, "copy"); err != nil {
			return "", fmt.Errorf("%s: %w", n.Name, err)
		}
		repeated, err := n.arrived(ctx, want, streamWindow, "rsyslog")
		if err != nil {
			return "", fmt.Errorf("%s: %w", n.Name, err)
		}
		twice += repeated
	}
	extra, err := first.sinkHas(ctx, "extra")
	if err != nil {
		return "", err
	}
	if err := d.stillKnown(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("both agents away for %.1f s (%s with %d bytes of its journal cut off and a sink added):\n"+
		"%d UDP packets sent at 1,000/s each way, 0 lost; one TCP stream of %d records unbroken;\n"+
		"%d log lines written meanwhile: 0 lost; twice: 0 in the file sink, %d at rsyslog (new sink: %d lines);\n"+
		"0 changes to links, addresses, routes, nft",
		gone.Seconds(), first.Name, cut, result.packets, result.records, result.lines.total(), twice, extra), nil
}

// cutTail cuts some bytes off the last record of a journal, as a crash in the middle of a write would.
func cutTail(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	const cut = 9
	if st.Size() < 2*cut {
		return 0, fmt.Errorf("the journal %s has only %d bytes", path, st.Size())
	}
	return cut, os.Truncate(path, st.Size()-cut)
}

// sinkHas waits until the sink's file has any of our lines and gives how many.
func (n *Node) sinkHas(ctx context.Context, sink string) (int, error) {
	for range 100 {
		got, err := read(n.sinkFile(sink))
		if err != nil {
			return 0, err
		}
		lines := 0
		for _, numbers := range got {
			lines += len(numbers)
		}
		if lines > 0 {
			return lines, nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%s: the sink %s that was added has no line after 5 s", n.Name, sink)
}

// stillKnown asks each agent for its containers: all must be there, with their addresses.
func (d *Demo) stillKnown(ctx context.Context) error {
	for _, n := range d.nodes {
		out, err := n.fairlead(ctx, "ps")
		if err != nil {
			return err
		}
		for _, c := range n.containers {
			if !strings.Contains(out, c.Addr) {
				return fmt.Errorf("%s: `fairlead ps` does not show %s of %s:\n%s", n.Name, c.Addr, c, out)
			}
		}
	}
	return nil
}

// load is what goes on while the agents are away.
type load struct {
	udp     [2]*Load // senders
	udpEnds [2]*Load // receivers
	tcp     *Load
	tcpEnd  *Load
	lines   map[string]*Load // by stream's beginning: "web1/a"
}

type loadResult struct {
	packets, records int
	lines            counts
}

func (d *Demo) startLoad(ctx context.Context) (_ *load, err error) {
	l := &load{lines: map[string]*Load{}}
	a, b := d.nodes[0].containers, d.nodes[1].containers
	start := func(c *Container, args ...string) *Load {
		if err != nil {
			return nil
		}
		var started *Load
		started, err = c.load(ctx, args...)
		return started
	}
	l.udpEnds[0], l.udpEnds[1] = start(b[0], "udp-receive", ":7000"), start(a[0], "udp-receive", ":7000")
	l.tcpEnd = start(b[1], "tcp-serve", ":7001")
	if err == nil {
		err = errors.Join(listening(ctx, b[0], "udp", 7000), listening(ctx, a[0], "udp", 7000), listening(ctx, b[1], "tcp", 7001))
	}
	l.udp[0] = start(a[0], "udp-send", b[0].Addr+":7000", "1000")
	l.udp[1] = start(b[0], "udp-send", a[0].Addr+":7000", "1000")
	l.tcp = start(a[1], "tcp-send", b[1].Addr+":7001", "200")
	for _, c := range []*Container{a[1], b[1]} {
		l.lines[c.String()] = start(c, "lines", "demo "+c.String(), "200", "out/restart=/proc/1/fd/1", "file/restart=/var/log/app.log")
	}
	return l, err
}

// listening waits until something in the container listens on port.
func listening(ctx context.Context, c *Container, proto string, port int) error {
	for range 100 {
		out, err := c.exec(ctx, "cat", "/proc/net/"+proto, "/proc/net/"+proto+"6")
		if err != nil {
			return err
		}
		if strings.Contains(out, fmt.Sprintf(":%04X ", port)) {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: nothing listens on %s port %d after 2 s", c, proto, port)
}

// end stops the load and checks what it reports.
func (l *load) end() (loadResult, error) {
	r := loadResult{lines: counts{}}
	errs := []error{l.udp[0].stop(), l.udp[1].stop(), l.tcp.stop()}
	for _, w := range l.lines {
		errs = append(errs, w.stop())
	}
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	for i := range l.udp {
		sent, err := delivered(l.udp[i], l.udpEnds[i])
		if err != nil {
			return r, err
		}
		r.packets += sent
	}
	var stream struct{ Sent, Echoed int }
	var served struct{ Bytes int }
	if err := errors.Join(l.tcp.wait(&stream), l.tcpEnd.wait(&served)); err != nil {
		return r, err
	}
	r.records = stream.Echoed
	for c, w := range l.lines {
		var wrote struct{ Lines int }
		if err := w.wait(&wrote); err != nil {
			return r, err
		}
		r.lines[c+"/out/restart"] = wrote.Lines
		r.lines[c+"/file/restart"] = wrote.Lines
	}
	return r, nil
}

// delivered waits for both ends of UDP traffic and gives how many packets were sent. A lost or repeated one is an error.
func delivered(sender, receiver *Load) (int, error) {
	var sent struct{ Sent int }
	var got struct {
		Received, Lost, Repeated int
	}
	if err := errors.Join(sender.wait(&sent), receiver.wait(&got)); err != nil {
		return 0, err
	}
	if got.Received != sent.Sent || got.Repeated > 0 {
		return 0, fmt.Errorf("of %d UDP packets %d arrived and %d came twice (%s)", sent.Sent, got.Received, got.Repeated, sender.what)
	}
	return sent.Sent, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
