package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/supervisor"
	"github.com/fairlead-dev/fairlead/logship"
	"github.com/fairlead-dev/fairlead/metrics"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/volumes"
)

type httpFunc func(http.ResponseWriter, *http.Request)

func (f httpFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) { f(w, r) }

// routes are the operator API: what the commands print is what these answer.
func (d *daemon) routes(s *api.Server) {
	s.Handle("GET /v1/status", func(*http.Request) (any, error) { return d.status(), nil })
	s.Handle("GET /v1/containers", func(r *http.Request) (any, error) { return d.containers(r.Context()) })
	s.Handle("GET /v1/networks", func(*http.Request) (any, error) { return d.overlay.Networks(), nil })
	s.Handle("GET /v1/networks/ports", func(r *http.Request) (any, error) { return d.overlay.HostPorts(r.Context()) })
	s.Handle("POST /v1/networks", changeNetwork(func(ctx context.Context, n overlay.Network) error { return d.overlay.CreateNetwork(ctx, n) }))
	s.Handle("POST /v1/networks/remove", changeNetwork(func(ctx context.Context, n overlay.Network) error { return d.overlay.RemoveNetwork(ctx, n.Name) }))
	s.Handle("POST /v1/networks/leave", changeNetwork(func(ctx context.Context, _ overlay.Network) error { return d.overlay.Leave(ctx) }))
	s.Handle("POST /v1/networks/forget-node", changeNetwork(func(ctx context.Context, n overlay.Network) error { return d.overlay.ForgetNode(ctx, n.Name) }))
	s.Handle("POST /v1/networks/take", takeRoute(d.overlay))
	netCheckRoute(s, d.overlay)
	logsRoutes(s, d.logship)
	s.Handle("GET /v1/doctor", func(*http.Request) (any, error) { return d.examine(), nil })
}

// changeNetwork answers with the networks that there are after the change, or says what was wrong with it.
func changeNetwork(change func(context.Context, overlay.Network) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var n overlay.Network
		if err := api.Body(r, &n); err != nil {
			return nil, err
		}
		if err := change(r.Context(), n); err != nil {
			return nil, api.Errorf(http.StatusConflict, "%v", err)
		}
		return n, nil
	}
}

// statusAnswer is what `fairlead status` shows.
type statusAnswer struct {
	Version  string                   `json:"version"`
	Node     string                   `json:"node"`
	Wrong    []string                 `json:"wrong"` // empty when all is well
	Parts    []supervisor.PartHealth  `json:"parts"`
	Runtimes []container.RuntimeState `json:"runtimes"`
	Networks []overlay.NetworkStatus  `json:"networks"`
	Sinks    []logship.SinkStatus     `json:"sinks"`
	Backups  []volumes.LastBackup     `json:"backups"` // the last of each volume
}

func (d *daemon) status() statusAnswer {
	s := statusAnswer{
		Version: version, Node: d.file.Node.Name, Wrong: []string{},
		Parts: d.super.Health(), Runtimes: d.inventory.Snapshot().Runtimes, Networks: d.overlay.Networks(), Sinks: d.logship.Sinks(),
		Backups: d.volumes.LastBackups(),
	}
	if problem := d.overlay.Problem(); problem != "" {
		s.Wrong = append(s.Wrong, "overlay store: "+problem)
	}
	s.judge()
	return s
}

// judge says what is wrong.
func (s *statusAnswer) judge() {
	for _, p := range s.Parts {
		if p.State != supervisor.Running {
			s.Wrong = append(s.Wrong, fmt.Sprintf("part %s is %s: %s", p.Name, p.State, p.LastError))
		}
	}
	for _, r := range s.Runtimes {
		if !r.Answered {
			s.Wrong = append(s.Wrong, fmt.Sprintf("runtime %s does not answer on %s: %s", r.Name, r.Socket, r.Error))
		}
	}
	for _, k := range s.Sinks {
		if !k.Up && k.Error != "" {
			s.Wrong = append(s.Wrong, fmt.Sprintf("sink %s: %s", k.Name, k.Error))
		}
	}
	for _, n := range s.Networks {
		if len(n.Fenced) > 0 {
			s.Wrong = append(s.Wrong, fmt.Sprintf("containers of network %s have addresses that are another host's now; start them anew: %s", n.Name, strings.Join(n.Fenced, ", ")))
		}
	}
	for _, b := range s.Backups {
		if b.Error != "" {
			s.Wrong = append(s.Wrong, fmt.Sprintf("the last backup of %s failed at %s: %s", b.Volume, b.At.Local().Format(time.DateTime), b.Error))
		}
	}
}

// psRow is one container as `fairlead ps` shows it.
type psRow struct {
	container.Container
	Usage *metrics.Usage `json:"usage,omitempty"`
	CPUs  *float64       `json:"cpus,omitempty"` // cores in use, measured over psInterval
	Addrs []netip.Addr   `json:"addrs,omitempty"`
}

// psInterval is the time over which `fairlead ps` measures CPU use.
const psInterval = 250 * time.Millisecond

func (d *daemon) containers(ctx context.Context) ([]psRow, error) {
	before, err := d.metrics.Usage(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(psInterval):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err := d.metrics.Usage(ctx)
	if err != nil {
		return nil, err
	}
	type key struct {
		runtime container.Runtime
		id      container.ID
	}
	first, last := map[key]*metrics.Usage{}, map[key]*metrics.Usage{}
	for i, u := range before {
		first[key{u.Runtime, u.ID}] = &before[i]
	}
	for i, u := range after {
		last[key{u.Runtime, u.ID}] = &after[i]
	}
	rows := []psRow{}
	for _, c := range d.inventory.Snapshot().Containers {
		k := key{c.Runtime, c.ID}
		row := psRow{Container: c, Usage: last[k], CPUs: rate(first[k], last[k])}
		for _, a := range c.Attachments {
			row.Addrs = append(row.Addrs, a.Addrs...)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// rate gives the cores used between two readings, or nil when it is not known.
func rate(a, b *metrics.Usage) *float64 {
	if a == nil || b == nil || a.CPUSeconds == nil || b.CPUSeconds == nil || !b.At.After(a.At) {
		return nil
	}
	return new((*b.CPUSeconds - *a.CPUSeconds) / b.At.Sub(a.At).Seconds())
}

func (d *daemon) examine() []host.Finding {
	out := d.file.root().Examine()
	runtimes := d.inventory.Snapshot().Runtimes
	if len(runtimes) == 0 {
		out = append(out, host.Finding{What: "runtimes", Found: "none answers", Advice: "start one; it is found by its socket"})
	}
	for _, r := range runtimes {
		f := host.Finding{What: "runtime " + string(r.Name), OK: r.Answered, Found: fmt.Sprintf("%d containers on %s", r.Count, r.Socket)}
		if !r.Answered {
			f.Found, f.Advice = r.Error, "its containers are kept as last seen until it answers"
		}
		out = append(out, f)
	}
	out = append(out, examineLogs(d.inventory.Snapshot().Containers, d.logship.Streams())...)
	return append(out, d.overlay.Examine()...)
}
