package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/metrics/expo"
	"github.com/fairlead-dev/fairlead/metrics/linkstat"
)

// network says where a container's interface counters come from: from the host ends of its links, or, for one that has
// none (macvlan, rootless taps), from inside its namespace at 18 us a scrape. A container in the host's own namespace
// has neither: its counters would be the machine's.
type network struct {
	links  []namedLink
	inside string // path of its net/dev
	own    bool   // it answers for a network namespace that is not the agent's
}

type namedLink struct {
	index int
	host  string // the host end's name
	name  string // the interface label: the name inside the container, else the host end's
}

// network decides how t is measured. Names that old has already found are not looked up again: an interface keeps its
// name for as long as it is up. ours tells whether a namespace is, or may be, the agent's own.
func (m *Metrics) network(t target, old *slot, ours func(host.NetNS) bool) network {
	c := t.c
	switch {
	case !t.network:
		return network{}
	case len(c.Links) == 0:
		if c.PID == 0 || ours(c.NetNS) {
			return network{}
		}
		return network{own: true, inside: filepath.Join(m.deps.Root.Proc, strconv.Itoa(c.PID), "net/dev")}
	}
	n := network{own: c.PID != 0 && !ours(c.NetNS)}
	for _, l := range c.Links {
		n.links = append(n.links, namedLink{index: l.Index, host: l.Name, name: m.interfaceName(c, l, old)})
	}
	return n
}

// interfaceName gives the interface label of the host's link l: what the overlay says, what was found before, what the
// container's own tables say, else the host end's name.
func (m *Metrics) interfaceName(c *container.Container, l container.Link, old *slot) string {
	for _, a := range c.Attachments {
		if a.Link.Index == l.Index && a.IfName != "" {
			return a.IfName
		}
	}
	if old != nil {
		for _, o := range old.net.links {
			if o.index == l.Index && o.host == l.Name {
				return o.name
			}
		}
	}
	return m.insideName(c, l)
}

// insideName finds the name that the other end of the host's link l has in the container: by its index, which sysfs
// shows as iflink, or because there is only one. Failing both it is the host end's name.
func (m *Metrics) insideName(c *container.Container, l container.Link) string {
	at := filepath.Join(m.deps.Root.Proc, strconv.Itoa(c.PID), "net")
	if len(c.Links) == 1 {
		var names []string
		if text, err := os.ReadFile(filepath.Join(at, "dev")); err == nil {
			_ = linkstat.ParseNetDev(text, func(name []byte, _ linkstat.Counters) { names = append(names, string(name)) })
		}
		if len(names) == 1 {
			return names[0]
		}
	}
	text, err1 := os.ReadFile(filepath.Join(m.deps.Root.Sys, "class/net", l.Name, "iflink"))
	table, err2 := os.ReadFile(filepath.Join(at, "dev_mcast"))
	if err1 == nil && err2 == nil {
		peer, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if name := linkstat.ParseMulticast(table)[peer]; err == nil && name != "" {
			return name
		}
	}
	return l.Name
}

// netReading is one interface of one container, as the container sees it.
type netReading struct {
	slot     *slot
	labels   *expo.Labels
	counters linkstat.Counters
}

// readLinks reads the interface counters of all containers.
func (m *Metrics) readLinks(v view, deadline time.Time, into []netReading) []netReading {
	if len(v.byLink) > 0 {
		if err := m.dumpLinks(deadline, func(index int, c linkstat.Counters) {
			if of, ok := v.byLink[index]; ok {
				of.counters = c.Mirror()
				into = append(into, of)
			}
		}); err != nil {
			m.cost.failed("links").Inc()
			m.deps.Log.Warn("link statistics could not be read", "err", err)
		}
	}
	for _, s := range v.inside {
		if !time.Now().Before(deadline) {
			m.cost.leftOut.Inc()
			break
		}
		text, err := os.ReadFile(s.net.inside)
		if os.IsNotExist(err) {
			continue // its process ended
		}
		if err == nil {
			if err = linkstat.ParseNetDev(text, func(name []byte, c linkstat.Counters) {
				into = append(into, netReading{s, s.labels.With("interface", string(name)), c})
			}); err != nil {
				err = fmt.Errorf("parse %s: %w", s.net.inside, err)
			}
		}
		if err != nil {
			m.cost.failed("links").Inc()
			m.deps.Log.Warn("interfaces of a container could not be read", "container", s.id, "err", err)
		}
	}
	return into
}

func (m *Metrics) dumpLinks(deadline time.Time, visit func(int, linkstat.Counters)) error {
	conn, err := m.dial(deadline)
	if err != nil {
		return err
	}
	defer conn.Close()
	if m.scratch.links == nil {
		m.scratch.links = make([]byte, linkstat.BufferSize)
	}
	return linkstat.Dump(conn, m.scratch.links, visit)
}
