//go:build kernel

package restart

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/fairlead-dev/fairlead/test/e2e/cni/drivers"
)

// monitor is `ip monitor` and `nft monitor` on the host.
type monitor struct {
	w       *world
	ip, nft *drivers.Process
}

// watch begins to listen. It returns when both monitors have shown that they do. Where something will be written nft
// shows tables only: it sometimes ends with "Memory allocation failure" while it prints ranges of our sets (nft 1.0.6).
func (w *world) watch(silent bool) *monitor {
	w.t.Helper()
	m := &monitor{w: w}
	nft := []string{"nft", "monitor"}
	if !silent {
		nft = append(nft, "tables")
	}
	for into, argv := range map[**drivers.Process][]string{
		&m.ip: {"ip", "-ts", "-o", "monitor", "link", "address", "route", "neigh", "rule"}, &m.nft: nft,
	} {
		p, err := drivers.Start(w.NetNS(), nil, append([]string{"stdbuf", "-oL"}, argv...)...)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = p.Kill() }) // a second time does no harm
		*into = p
	}
	m.mark(1)
	return m
}

// trusted waits until the kernel trusts its own link-local addresses, which takes it up to two seconds for a new link:
// it tells monitors when it does.
func (w *world) trusted() {
	w.t.Helper()
	w.sh(`for i in $(seq 1000); do [ -z "$(ip -6 -o addr show tentative)" ] && exit 0; sleep 0.01; done; exit 1`)
}

// mark changes something of its own until both monitors have told of it: then they tell of all that was before, too.
func (m *monitor) mark(n int) {
	m.w.t.Helper()
	route, table := fmt.Sprintf("198.51.100.%d", n), fmt.Sprintf("mark%d", n)
	for range 500 {
		m.w.sh("ip route add unreachable " + route + "; ip route del unreachable " + route + "; nft add table inet " + table + "; nft delete table inet " + table)
		if strings.Contains(m.ip.Said(), route) && strings.Contains(m.nft.Said(), "delete table inet "+table) {
			return
		}
	}
	m.w.t.Fatalf("the monitors do not answer:\n%s%s", m.ip.Said(), m.nft.Said())
}

// notOurs is what the monitor's own marks say, and what the kernel does by itself to neighbours that it learnt.
var notOurs = regexp.MustCompile(`198\.51\.100\.|table inet mark|\(nft\)$|\b(REACHABLE|STALE|DELAY|PROBE|FAILED|INCOMPLETE)\b`)

// end gives what the monitors told, one event a line.
func (m *monitor) end() (events []string) {
	m.w.t.Helper()
	m.mark(2)
	for _, p := range []*drivers.Process{m.ip, m.nft} {
		_ = p.Kill()
		for line := range strings.Lines(p.Said()) {
			if line = strings.TrimSpace(line); line != "" && !notOurs.MatchString(line) {
				events = append(events, line)
			}
		}
	}
	return events
}
