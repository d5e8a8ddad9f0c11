// Package cni is the door by which runtimes reach the overlay through the CNI plugin: it listens on cni.sock, turns
// each request into overlay's words and the answer into the spec's.
//
// It owns the socket and the spool of DEL requests that plugins leave while nobody listens; the spool is drained
// before anything else is served. A crash in the middle of a request leaves the overlay's journal to tell what to undo.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/agent"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/cni-plugin/crash"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Network is what the door needs of the overlay.
type Network interface {
	Ready(context.Context) error
	Attach(context.Context, overlay.Request) (plan.Attachment, error)
	Detach(ctx context.Context, key plan.Key, nsid string) error
	Check(context.Context, plan.Key, plan.Namespace, overlay.Said) (plan.Attachment, []string, error)
	Admits(ctx context.Context, network string) error
	GC(ctx context.Context, network, runtime string, valid []plan.Key) error
}

// Door serves CNI requests.
type Door struct {
	socket  string
	network Network
	log     *slog.Logger
	stats   *stat.Registry

	turns turns

	mu      sync.Mutex
	drained bool
}

// New makes a Door on the socket path. It touches nothing.
func New(socket string, network Network, log *slog.Logger, stats *stat.Registry) *Door {
	return &Door{socket: socket, network: network, log: log, stats: stats}
}

// spoolEvery is how often the spool is looked at while we listen: who found the queue of a busy agent full leaves his DEL
// there too.
const spoolEvery = time.Minute

// requestTime bounds one request: well below what the plugin waits.
const requestTime = 15 * time.Second

// Run listens until ctx ends, then lets the requests under way finish. It may be called again.
func (d *Door) Run(ctx context.Context) error {
	l, err := listen(d.socket)
	if err != nil {
		return fmt.Errorf("listen for CNI requests: %w", err)
	}
	d.mu.Lock()
	d.drained = false
	d.mu.Unlock()
	g := agent.NewGroup(ctx)
	g.Go(func(ctx context.Context) error {
		<-ctx.Done()
		return l.Close() // ends Accept
	})
	g.Go(func(ctx context.Context) error {
		// Plugins wait meanwhile; a fault is told to each of them.
		if err := d.prepare(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("CNI requests are answered with 'try again later' until the overlay is up", "err", err)
		}
		agent.Ready(ctx)
		return d.keepDrained(ctx)
	})
	g.Go(func(ctx context.Context) error { return d.accept(ctx, l, g) })
	return g.Wait()
}

// accept serves each connection in a goroutine of g until l is closed.
func (d *Door) accept(ctx context.Context, l *net.UnixListener, g *agent.Group) error {
	for ctx.Err() == nil {
		c, err := l.AcceptUnix()
		if err == nil {
			g.Go(func(ctx context.Context) error {
				d.serve(ctx, c)
				return nil
			})
		} else if ctx.Err() == nil {
			return fmt.Errorf("accept CNI request: %w", err)
		}
	}
	return nil
}

// listen takes over the socket of an agent that is gone, never that of one that answers.
func listen(socket string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", socket); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("another agent answers on %s", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(socket, 0o600) // plugins run as root
}

// prepare waits for the overlay and drains the spool, once.
func (d *Door) prepare(ctx context.Context) error {
	if err := d.network.Ready(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.drained {
		return nil
	}
	if err := d.drain(ctx); err != nil {
		return fmt.Errorf("drain spooled DELs: %w", err)
	}
	d.drained = true
	return nil
}

func (d *Door) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(requestTime))
	// Who has not said what he wants when the agent stops is not waited for; a request that is under way is.
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	call, err := receive(c)
	stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	if errors.Is(err, io.EOF) {
		return // somebody looked whether an agent answers
	}
	if err != nil {
		d.log.Warn("CNI request could not be read", "err", err)
		d.answer(c, wire.Response{Error: wire.Errorf(wire.CodeDecode, "read request", err)})
		return
	}
	defer call.close()
	// Until the end: a plugin that asks again for what an earlier one was not told of waits until that has been undone.
	defer d.turns.take(call.key())()
	began := time.Now()
	crash.Begin(call.Command)
	res := d.do(ctx, call)
	d.count(call.Command, res.Error)
	if res.Error != nil {
		d.log.Warn("CNI request was refused", "command", call.Command, "container", call.ContainerID, "code", int(res.Error.Code), "err", res.Error)
	} else {
		d.log.Debug("CNI request served", "command", call.Command, "container", call.ContainerID, "took", time.Since(began))
	}
	crash.Point("to be answered")
	told := d.answer(c, res)
	crash.Point("answered")
	if !told && call.Command == "ADD" && res.Error == nil {
		// The plugin died before it was told: nobody will use this attachment.
		if err := d.network.Detach(context.WithoutCancel(ctx), call.key(), call.nsid()); err != nil {
			d.log.Error("could not undo an ADD that nobody waited for", "container", call.ContainerID, "err", err)
		}
	}
}

func (d *Door) count(command string, fault *wire.Error) {
	switch command {
	case "ADD", "DEL", "CHECK", "STATUS", "GC":
	default:
		command = "other"
	}
	result := "ok"
	if fault != nil {
		result = "error"
	}
	d.stats.Counter("fairlead_overlay_cni_requests_total", "CNI requests answered, by command and result.",
		stat.Label{Name: "command", Value: command}, stat.Label{Name: "result", Value: result}).Inc()
}

// do serves one request.
func (d *Door) do(ctx context.Context, c *call) wire.Response {
	if c.Version != wire.Version {
		return refuse(wire.CodeIncompatible, fmt.Sprintf("plugin speaks version %d, agent %d: install both from one build", c.Version, wire.Version), nil)
	}
	conf, fault := parseConfig(c.Config)
	if fault != nil {
		return wire.Response{Error: fault}
	}
	if err := d.prepare(ctx); err != nil {
		if c.Command == "DEL" {
			if kept := d.keep(c.Request); kept == nil {
				return wire.Response{}
			}
		}
		if c.Command == "STATUS" {
			// Containers go on talking, but what is changed under them is not put right.
			return refuse(wire.CodeLimited, "agent is not ready", err)
		}
		return refuse(wire.CodeTryLater, "agent is not ready", err)
	}
	switch c.Command {
	case "ADD":
		d.forget(c.Request)
		return d.add(ctx, c, conf)
	case "DEL":
		if err := d.network.Detach(ctx, c.key(), c.nsid()); err != nil {
			return refuse(wire.CodeFailed, "DEL", err)
		}
		d.forget(c.Request)
		return wire.Response{}
	case "CHECK":
		return d.check(ctx, c, conf)
	case "STATUS":
		return d.status(ctx, conf)
	case "GC":
		return d.collect(ctx, conf)
	}
	return refuse(wire.CodeInvalidEnv, fmt.Sprintf("unknown command %q", c.Command), nil)
}

func (d *Door) add(ctx context.Context, c *call, conf config) wire.Response {
	req, fault := conf.request(c.Args)
	if fault != nil {
		return wire.Response{Error: fault}
	}
	prev, err := conf.previous()
	if err != nil {
		return refuse(wire.CodeDecode, "ADD", err)
	}
	if c.ns < 0 {
		return refuse(wire.CodeUnknownContainer, fmt.Sprintf("network namespace %s cannot be opened", c.NetNS), nil)
	}
	req.Key, req.NS = c.key(), c.namespace()
	a, err := d.network.Attach(ctx, req)
	if err != nil {
		return refuse(code(err), "ADD", err)
	}
	result, err := conf.result(a, prev)
	if err != nil {
		return refuse(wire.CodeInvalidConfig, "ADD", errors.Join(err, d.network.Detach(ctx, c.key(), c.nsid())))
	}
	return wire.Response{Result: result}
}

func (d *Door) check(ctx context.Context, c *call, conf config) wire.Response {
	if c.ns < 0 {
		return refuse(wire.CodeUnknownContainer, fmt.Sprintf("network namespace %s cannot be opened", c.NetNS), nil)
	}
	prev, err := conf.previous()
	if err != nil {
		return refuse(wire.CodeDecode, "CHECK", err)
	}
	a, differences, err := d.network.Check(ctx, c.key(), c.namespace(), said(prev, c.IfName))
	switch {
	case errors.Is(err, overlay.ErrNotAttached):
		return refuse(wire.CodeUnknownContainer, "CHECK", err)
	case err != nil:
		return refuse(code(err), "CHECK", err)
	}
	if differences = append(differences, contradictions(prev, a)...); len(differences) > 0 {
		text, _ := json.Marshal(differences)
		return refuse(wire.CodeCheck, fmt.Sprintf("CHECK: %s", differences[0]), fmt.Errorf("all differences: %s", text))
	}
	return wire.Response{}
}

// status tells whether an ADD would be served.
func (d *Door) status(ctx context.Context, conf config) wire.Response {
	err := d.network.Admits(ctx, conf.network())
	switch {
	case errors.Is(err, overlay.ErrNotReady):
		return refuse(wire.CodeLimited, "agent is not ready", err)
	case err != nil:
		return refuse(wire.CodeNotAvailable, "no container can be added", err)
	}
	return wire.Response{}
}

// collect ends what the runtime no longer names.
func (d *Door) collect(ctx context.Context, conf config) wire.Response {
	valid, fault := conf.valid()
	if fault != nil {
		return wire.Response{Error: fault}
	}
	if err := d.network.GC(ctx, conf.network(), conf.Owner, valid); err != nil {
		return refuse(code(err), "GC", err)
	}
	return wire.Response{}
}

func refuse(code wire.Code, msg string, cause error) wire.Response {
	return wire.Response{Error: wire.Errorf(code, msg, cause)}
}

// code gives the spec's code for an error of the overlay.
func code(err error) wire.Code {
	var unknown *overlay.UnknownNetworkError
	var invalid *overlay.InvalidRequestError
	switch {
	case errors.Is(err, overlay.ErrNotReady), errors.Is(err, overlay.ErrTryLater), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return wire.CodeTryLater
	case errors.As(err, &unknown):
		return wire.CodeInvalidConfig
	case errors.As(err, &invalid):
		return wire.CodeInvalidEnv
	}
	return wire.CodeFailed
}
