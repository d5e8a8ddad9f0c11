package metrics

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/sockstat"
)

// socketMetric has, for each container that answers for a network namespace, one series for each state.
type socketMetric struct {
	Metric
	states []string
	extras [][]byte // by state
	values func(c *sockstat.Counts) []uint64
}

var socketMetrics = []socketMetric{
	perState("container_network_tcp_usage_total", "TCP sockets over IPv4 in each state", "tcp_state", sockstat.States(),
		func(c *sockstat.Counts) []uint64 { return c.TCP[:] }),
	perState("container_network_tcp6_usage_total", "TCP sockets over IPv6 in each state", "tcp_state", sockstat.States(),
		func(c *sockstat.Counts) []uint64 { return c.TCP6[:] }),
	perState("container_network_udp_usage_total", udpHelp+"IPv4", "udp_state", udpStates,
		func(c *sockstat.Counts) []uint64 { return c.UDP.List() }),
	perState("container_network_udp6_usage_total", udpHelp+"IPv6", "udp_state", udpStates,
		func(c *sockstat.Counts) []uint64 { return c.UDP6.List() }),
}

// openSocketsMetric has one series for each container.
var openSocketsMetric = Metric{expo.Family{Name: "container_sockets", Type: gauge,
	Help: "Open sockets of any family of the processes in the container's cgroup itself, from /proc/PID/fd; absent above 1,000 processes or 10,000 open files."},
	"sockets", nil}

const udpHelp = "Unconnected UDP sockets (listen), bytes that wait in their queues, and datagrams that open ones have dropped, over "

var udpStates = []string{"listen", "rxqueued", "txqueued", "dropped"}

func perState(name, what, label string, states []string, values func(*sockstat.Counts) []uint64) socketMetric {
	m := socketMetric{Metric: Metric{expo.Family{Name: name, Type: gauge, Help: what + ", in the container's network namespace, from sock_diag."},
		"sockets", []string{label}}, states: states, values: values}
	for _, s := range states {
		m.extras = append(m.extras, expo.AppendLabel(nil, label, s))
	}
	return m
}

// socketReading is the sockets of one container's network namespace.
type socketReading struct {
	slot   *slot
	counts sockstat.Counts
}

// readSockets asks in each network namespace that is not the agent's own. It costs 0.1 ms for each, so it is asked for.
func (m *Metrics) readSockets(v view, deadline time.Time, into []socketReading) []socketReading {
	for _, s := range v.slots {
		if !s.net.own {
			continue
		}
		if !time.Now().Before(deadline) {
			m.cost.leftOut.Inc()
			break
		}
		c, err := sockstat.Read(filepath.Join(m.deps.Root.Proc, strconv.Itoa(s.key.pid), "ns/net"), deadline)
		switch {
		case err == nil:
			into = append(into, socketReading{s, c})
		case !os.IsNotExist(err): // else its process ended
			m.cost.failed("sockets").Inc()
			m.deps.Log.Debug("sockets of a container could not be counted", "container", s.id, "err", err)
		}
	}
	return into
}

func (s *encode) sockets(p *page) {
	if s.exclude[openSocketsMetric.Group] {
		return
	}
	s.encoder.Family(openSocketsMetric.Family)
	for i := range p.readings {
		if r := &p.readings[i]; r.stats.Pids.Sockets.Known {
			s.sample(r.slot, r.slot.labels, nil, float64(r.stats.Pids.Sockets.N))
		}
	}
	for i := range socketMetrics {
		m := &socketMetrics[i]
		s.encoder.Family(m.Family)
		for j := range p.sockets {
			r := &p.sockets[j]
			for k, n := range m.values(&r.counts) {
				if m.states[k] != "" {
					s.sample(r.slot, r.slot.labels, m.extras[k], float64(n))
				}
			}
		}
	}
}
