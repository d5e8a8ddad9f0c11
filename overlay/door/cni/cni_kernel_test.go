//go:build kernel

package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/stat"
	"github.com/fairlead-dev/fairlead/agent/state"
	"github.com/fairlead-dev/fairlead/cni-plugin/wire"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/overlay/kernel"
	"github.com/fairlead-dev/fairlead/overlay/plan"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestMain(m *testing.M) { hosttest.MainInNetNS(m, removePlugin) }

// pluginDir is where buildPlugin put the binary.
var pluginDir string

func removePlugin() { _ = os.RemoveAll(pluginDir) }

// world is one host: this test binary's own network namespace, the built plugin, and an agent that can be restarted.
type world struct {
	t      *testing.T
	dir    string
	socket string
	cni    *libcni.CNIConfig
	board  container.Board

	overlay *overlay.Overlay
	stop    func()
	said    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// buildPlugin gives a directory with the plugin: that of FAIRLEAD_CNI_DIR where there is no Go, else a fresh build.
var buildPlugin = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("FAIRLEAD_CNI_DIR"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "fairlead-cni-")
	if err != nil {
		return "", err
	}
	pluginDir = dir
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "fairlead-cni"), "github.com/fairlead-dev/fairlead/cmd/fairlead-cni").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build plugin: %w\n%s", err, out)
	}
	return dir, nil
})

func newWorld(t *testing.T) *world {
	t.Helper()
	hosttest.Require(t, "ip", "nft", "ping", "nsenter")
	bin, err := buildPlugin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "fl-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, socket: filepath.Join(dir, "cni.sock"), cni: libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(dir, "cache"), &invoke.DefaultExec{RawExec: &invoke.RawExec{}})}
	sh(t, "ip link add under type veth peer name far && ip addr add 192.0.2.11/24 dev under && ip link set under up && ip link set far up")
	t.Cleanup(func() {
		sh(t, "ip link del under; ip route flush proto 94; ip link del group 64030 2>/dev/null; ip link del group 64032 2>/dev/null; nft delete table inet fairlead")
		if left := strings.TrimSpace(sh(t, "ip -o link show | grep -v -e ' lo:' -e ' ifb' -e ' tunl' -e ' sit' -e ' gre' -e ' erspan' -e ' ip_vti' -e ' ip6' || true")); left != "" {
			t.Errorf("links are left:\n%s", left)
		}
	})
	return w
}

// start runs an agent's overlay and door on the world's state directory.
func (w *world) start() {
	w.t.Helper()
	w.said = &syncBuffer{}
	log := slog.New(slog.NewTextHandler(w.said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	root, err := state.Open(filepath.Join(w.dir, "state"), log)
	if err != nil {
		w.t.Fatal(err)
	}
	sub, err := root.Sub("overlay")
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := overlay.Config{
		Store: "static", Port: 4789,
		Peers: []overlay.Peer{
			{Name: "web1", Address: netip.MustParseAddr("192.0.2.11"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/26")}},
			{Name: "web2", Address: netip.MustParseAddr("192.0.2.12"), Blocks: []netip.Prefix{netip.MustParsePrefix("10.42.2.0/24")}},
		},
		Networks: []overlay.Network{{Name: "blue", CIDR: netip.MustParsePrefix("10.42.0.0/16"), VNI: 42}},
	}
	if err := cfg.Validate(); err != nil {
		w.t.Fatal(err)
	}
	stats := &stat.Registry{}
	o, err := overlay.New(cfg, overlay.Deps{Log: log, Stats: stats, State: sub, Root: host.DefaultRoot(), Board: &w.board, NodeName: "web1"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.overlay = o
	door := New(w.socket, o, log, stats)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{"overlay": o.Run, "door": door.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				w.t.Errorf("%s: %v\n%s", name, err, w.said)
			}
		})
	}
	w.stop = func() {
		cancel()
		wg.Wait()
		w.stop = func() {}
	}
	w.t.Cleanup(func() { w.stop() })
	if err := o.Ready(ctx); err != nil {
		w.t.Fatalf("%v\n%s", err, w.said)
	}
}

func (w *world) conf() *libcni.NetworkConfigList {
	w.t.Helper()
	list, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"fairlead-cni","socket":%q,"capabilities":{"ips":true}}]}`, w.socket))
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func (w *world) runtime(id string, ns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: ns, IfName: "eth0"}
}

func (w *world) add(id, ns string) (*types100.Result, error) {
	res, err := w.cni.AddNetworkList(w.t.Context(), w.conf(), w.runtime(id, ns))
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(res)
}

func (w *world) mustAdd(id, ns string) netip.Addr {
	w.t.Helper()
	res, err := w.add(id, ns)
	if err != nil {
		w.t.Fatalf("ADD %s: %v\n%s", id, err, w.said)
	}
	addr, ok := netip.AddrFromSlice(res.IPs[0].Address.IP.To4())
	if !ok || len(res.Interfaces) != 2 || res.Interfaces[1].Sandbox != ns {
		w.t.Fatalf("result %+v", res)
	}
	return addr
}

func (w *world) del(id, ns string) {
	w.t.Helper()
	if err := w.cni.DelNetworkList(w.t.Context(), w.conf(), w.runtime(id, ns)); err != nil {
		w.t.Fatalf("DEL %s: %v", id, err)
	}
}

func (w *world) check(id, ns string) error {
	return w.cni.CheckNetworkList(w.t.Context(), w.conf(), w.runtime(id, ns))
}

// eventually waits for what happens on an event that this test cannot see.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for range hosttest.Bound(4*time.Second) / (10 * time.Millisecond) {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("not within 4 s: %s\n%s", what, w.said)
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func in(t *testing.T, ns, script string) (string, error) {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+ns, "sh", "-c", script).CombinedOutput()
	return string(out), err
}

func must(t *testing.T, ns, script string) {
	t.Helper()
	if out, err := in(t, ns, script); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func TestContainersAreAttachedReachEachOtherAndLeaveNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	before := sh(t, "ip route; nft list ruleset | sed 's/packets.*drop/drop/'")
	a, b := hosttest.NetNS(t), hosttest.NetNS(t)
	addrA, addrB := w.mustAdd("a", a.Path), w.mustAdd("b", b.Path)
	if addrA.String() != "10.42.1.2" || addrB.String() != "10.42.1.3" {
		t.Fatalf("got %s and %s", addrA, addrB)
	}
	must(t, a.Path, "ping -c1 -W1 "+addrB.String())
	sh(t, "ping -c1 -W1 "+addrA.String())
	if out, err := in(t, a.Path, "ping -c1 -W1 192.0.2.11"); err == nil {
		t.Fatalf("the host itself answers a container:\n%s", out)
	}
	if again := w.mustAdd("a", a.Path); again != addrA {
		t.Fatalf("a second ADD gave %s after %s", again, addrA)
	}
	if err := w.check("a", a.Path); err != nil {
		t.Fatal(err)
	}
	w.del("a", a.Path)
	if out, err := in(t, b.Path, "ping -c1 -W1 "+addrA.String()); err == nil {
		t.Fatalf("the address answers after DEL:\n%s", out)
	}
	w.del("a", a.Path)
	w.del("b", b.Path)
	w.del("never", "/proc/1/ns/none")
	w.eventually("links are gone", func() bool {
		return sh(t, "ip -o link show group 64030; ip -o link show group 64031") == ""
	})
	if after := sh(t, "ip route; nft list ruleset | sed 's/packets.*drop/drop/'"); after != before {
		t.Fatalf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestCheckNamesWhatWasTamperedWith(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	addr := w.mustAdd("a", ns.Path)
	link := plan.Key{Owner: "a", IfName: "eth0"}.Link()
	// The kernel takes routes and neighbours away with the last address.
	restore := "ip -n NS neigh replace 169.254.77.1 lladdr " + plan.HostMAC.String() + " dev eth0; ip -n NS route replace 169.254.77.1 dev eth0; ip -n NS route replace default via 169.254.77.1 dev eth0"
	for _, c := range []struct{ damage, repair, want string }{
		{"ip route del 10.42.1.2", "ip route replace 10.42.1.2 dev " + link + " scope link src 10.42.1.1 proto 94", "host route is missing: 10.42.1.2/32"},
		{"ip link set " + link + " mtu 1300", "ip link set " + link + " mtu 1450", "has MTU 1300, not 1450"},
		{"ip neigh del 10.42.1.2 dev " + link, "ip neigh replace 10.42.1.2 lladdr " + plan.Attachment{Addr: addr}.ContainerMAC().String() + " dev " + link, "host neighbour is missing"},
		{"ip -n NS addr del 10.42.1.2/32 dev eth0", "ip -n NS addr add 10.42.1.2/32 dev eth0; " + restore, "container address 10.42.1.2 is missing"},
		{"ip -n NS route del default", "ip -n NS route add default via 169.254.77.1 dev eth0", "container route is missing: 0.0.0.0/0"},
		{"ip -n NS neigh del 169.254.77.1 dev eth0", "ip -n NS neigh add 169.254.77.1 lladdr " + plan.HostMAC.String() + " dev eth0", "container neighbour is missing"},
	} {
		damage, repair := inNS(c.damage, ns.Path), inNS(c.repair, ns.Path)
		sh(t, damage)
		if err := w.check("a", ns.Path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("after %q CHECK said: %v", c.damage, err)
		}
		sh(t, repair)
		if err := w.check("a", ns.Path); err != nil {
			t.Errorf("after repair %q: %v", c.repair, err)
		}
	}
}

func TestWhatSomebodyRemovesOrChangesIsPutRightWithinTwoSeconds(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	w.mustAdd("a", ns.Path)
	link := plan.Key{Owner: "a", IfName: "eth0"}.Link()
	state := func() string {
		return sh(t, `ip route show proto 94; ip -4 addr show dev fl-vx42 | grep inet; ip neigh show dev fl-vx42 | grep PERMANENT; ip neigh show dev `+link+` | grep PERMANENT;
			bridge fdb show dev fl-vx42 | grep dst; nft list table inet fairlead | sed 's/packets.*drop/drop/'; cat /proc/sys/net/ipv4/ip_forward;
			ip -o link show group 64030 | sed 's/^[0-9]*: \([^@:]*\).*mtu \([0-9]*\).*state \([A-Z]*\).*link.ether \([0-9a-f:]*\).*/\1 \2 \3 \4/' | sort`)
	}
	whole := state()
	for _, damage := range []string{
		"ip route del 10.42.1.2", "ip route flush proto 94", "ip link del fl-vx42", "ip link set fl-vx42 down", "ip link set fl-vx42 mtu 1280",
		"ip link set fl-vx42 address 02:00:00:00:00:07", "ip link set " + link + " address 02:00:00:00:00:07",
		"ip link set " + link + " down; ip link set " + link + " name foo0",
		"ip link set " + link + " name foo0 || { ip link set " + link + " down; ip link set " + link + " name foo0; }", // before Linux 6.2 one that is up keeps its name
		"ip addr del 10.42.1.1/32 dev fl-vx42", "ip neigh del 192.0.2.12 dev fl-vx42", "ip neigh del 10.42.1.2 dev " + link,
		"ip route replace 10.42.1.2 dev lo", "ip route replace unreachable 10.42.1.2", "ip route change 10.42.1.2 dev under scope link proto 94",
		"ip route replace 10.42.2.0/24 dev under", "ip neigh replace 10.42.1.2 lladdr 02:00:00:00:00:01 dev " + link,
		"ip neigh replace 192.0.2.12 lladdr 02:00:00:00:00:01 dev fl-vx42",
		"bridge fdb replace " + plan.VTEPMAC("web2", 42).String() + " dev fl-vx42 dst 192.0.2.77 self",
		"bridge fdb del " + plan.VTEPMAC("web2", 42).String() + " dev fl-vx42 dst 192.0.2.12 self",
		"nft delete table inet fairlead", "nft flush ruleset", "nft flush chain inet fairlead leave", "sysctl -qw net.ipv4.ip_forward=0",
	} {
		sh(t, damage)
		began := time.Now()
		for state() != whole && time.Since(began) < hosttest.Bound(3*time.Second) {
			time.Sleep(20 * time.Millisecond) // the kernel tells the agent, not us
		}
		if took := time.Since(began); took > hosttest.Bound(2*time.Second) {
			t.Fatalf("after %q for %s:\n%s\nwant:\n%s\n%s", damage, took, state(), whole, w.said)
		}
	}
	if err := w.check("a", ns.Path); err != nil {
		t.Fatal(err)
	}
}

// inNS turns "ip -n NS ..." into a command that enters the namespace by its path, which ip(8) cannot.
func inNS(script, ns string) string {
	return strings.ReplaceAll(script, "ip -n NS ", "nsenter --net="+ns+" ip ")
}

func TestRestartWithNothingChangedWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	addr := w.mustAdd("a", ns.Path)
	w.stop()
	silent := w.monitor()
	w.start()
	if err := w.check("a", ns.Path); err != nil {
		t.Fatal(err)
	}
	if again := w.mustAdd("a", ns.Path); again != addr {
		t.Fatalf("got %s after %s", again, addr)
	}
	if events := silent(); events != "" {
		t.Fatalf("the restart wrote:\n%s", events)
	}
	w.eventually("the board has the attachment", func() bool { return len(w.board.Attachments()) == 1 })
}

// monitor records the kernel's route and nftables events until the returned function is called. A route of ours, added
// and removed, proves that it was listening from the beginning to the end.
func (w *world) monitor() func() string {
	w.t.Helper()
	t := w.t
	// The kernel takes up to two seconds to trust its own link-local addresses, and tells the monitor when it does.
	w.eventually("no address is tentative", func() bool { return sh(t, "ip -6 -o addr show tentative") == "" })
	out := &syncBuffer{}
	for _, args := range [][]string{{"stdbuf", "-oL", "ip", "monitor", "link", "address", "route", "neigh"}, {"stdbuf", "-oL", "nft", "monitor"}} {
		c := exec.Command(args[0], args[1:]...)
		c.Stdout, c.Stderr = out, out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	}
	mark := func(n int) {
		route, table := fmt.Sprintf("198.51.100.%d", n), fmt.Sprintf("mark%d", n)
		for range 500 {
			sh(t, "ip route add unreachable "+route+"; ip route del unreachable "+route+"; nft add table inet "+table+"; nft delete table inet "+table)
			if s := out.String(); strings.Contains(s, route) && strings.Contains(s, "delete table inet "+table) {
				return
			}
		}
		t.Fatalf("no monitor answered:\n%s", out)
	}
	mark(1)
	return func() string {
		mark(2)
		var events []string
		for line := range strings.Lines(out.String()) {
			// That nobody answers on the underlay the kernel finds out by itself, seconds later.
			looked := strings.HasPrefix(line, "192.0.2.12 dev under") && strings.HasSuffix(strings.TrimSpace(line), "FAILED")
			if !looked && !strings.Contains(line, "198.51.100.") && !strings.Contains(line, "table inet mark") && !strings.HasPrefix(line, "# new generation") {
				events = append(events, line)
			}
		}
		return strings.Join(events, "")
	}
}

func TestAttachmentThatTheJournalLostIsAdopted(t *testing.T) {
	w := newWorld(t)
	w.start()
	a, b := hosttest.NetNS(t), hosttest.NetNS(t)
	w.mustAdd("a", a.Path)
	addrB := w.mustAdd("b", b.Path)
	w.stop()
	journal := filepath.Join(w.dir, "state/overlay/journal")
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, text[:len(text)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	silent := w.monitor()
	w.start()
	if !strings.Contains(w.said.String(), "adopted an attachment") {
		t.Fatalf("said\n%s", w.said)
	}
	if events := silent(); events != "" {
		t.Fatalf("the restart wrote:\n%s", events)
	}
	must(t, a.Path, "ping -c1 -W1 "+addrB.String())
	if err := w.check("b", b.Path); err != nil {
		t.Fatal(err)
	}
	if again := w.mustAdd("b", b.Path); again != addrB {
		t.Fatalf("got %s after %s", again, addrB)
	}
	c := hosttest.NetNS(t)
	if addr := w.mustAdd("c", c.Path); addr == addrB {
		t.Fatal("the adopted address was given away")
	}
}

func TestNamespaceThatVanishesWithoutDelFreesItsAddress(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	w.mustAdd("a", ns.Path)
	w.eventually("it is on the board", func() bool { return len(w.board.Attachments()) == 1 })
	ns.File.Close()
	w.eventually("it left the board", func() bool { return len(w.board.Attachments()) == 0 })

	ns = hosttest.NetNS(t)
	w.mustAdd("b", ns.Path)
	w.stop()
	ns.File.Close()
	w.eventually("the link is gone", func() bool {
		return !strings.Contains(sh(t, "ip -o link show group 64030"), plan.LinkPrefix)
	})
	w.start()
	w.eventually("it left the board", func() bool { return len(w.board.Attachments()) == 0 })
	if strings.Contains(sh(t, "ip route"), " dev "+plan.LinkPrefix) {
		t.Fatal("a route is left")
	}
}

func TestDelWithoutAnAgentIsSpooledAndServedFirst(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	w.mustAdd("a", ns.Path)
	w.stop()
	w.del("a", ns.Path)
	spooled, _ := filepath.Glob(filepath.Join(w.dir, "cni-spool", "del-*"))
	if len(spooled) != 1 {
		t.Fatalf("spooled %v", spooled)
	}
	if _, err := w.add("b", ns.Path); code11(err) == false {
		t.Fatalf("ADD without an agent: %v", err)
	}
	w.start()
	w.mustAdd("b", ns.Path) // the same interface name in the same namespace: only free after the DEL
	if spooled, _ := filepath.Glob(filepath.Join(w.dir, "cni-spool", "*")); len(spooled) != 0 {
		t.Fatalf("left %v", spooled)
	}
}

func code11(err error) bool {
	var e *types.Error
	return errors.As(err, &e) && e.Code == 11
}

func TestAddThatDiesAtAnyStepIsUndoneByTheNextStart(t *testing.T) {
	w := newWorld(t)
	w.start()
	probe := hosttest.NetNS(t)
	w.mustAdd("probe", probe.Path)
	w.del("probe", probe.Path)
	for step := range 6 {
		ns := hosttest.NetNS(t)
		w.stop()
		dieAtStep(t, w, ns, step)
		w.start()
		w.eventually("nothing is left", func() bool {
			return !strings.Contains(sh(t, "ip -o link; ip route"), plan.LinkPrefix)
		})
		w.mustAdd("dying", ns.Path)
		w.del("dying", ns.Path)
		w.eventually("nothing is left", func() bool { return !strings.Contains(sh(t, "ip -o link; ip route"), plan.LinkPrefix) })
	}
}

// dieAtStep leaves what an agent leaves that was killed in an ADD after so many steps.
func dieAtStep(t *testing.T, w *world, ns *hosttest.NetNamespace, steps int) {
	t.Helper()
	dir, err := state.Open(filepath.Join(w.dir, "state"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sub, err := dir.Sub("overlay")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := host.DefaultRoot().BootID()
	if err != nil {
		t.Fatal(err)
	}
	j, _, err := sub.OpenJournal("journal", boot)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Open(host.DefaultRoot())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	a := plan.Attachment{
		Key: plan.Key{Owner: "dying", IfName: "eth0"}, Network: "blue", Addr: netip.MustParseAddr("10.42.1.30"),
		Node: netip.MustParseAddr("10.42.1.1"), MTU: 1450, Default: true, Reach: netip.MustParsePrefix("10.42.0.0/16"), NSID: "1:1",
	}
	all := plan.Attach(a, plan.Namespace{FD: int(ns.File.Fd()), Path: ns.Path})
	if steps >= len(all) {
		t.Fatalf("an ADD has %d steps", len(all))
	}
	record := map[string]any{"op": "attach", "attachment": a}
	if err := errors.Join(j.Append(record), j.Close(), k.Apply(t.Context(), all[:steps])); err != nil {
		t.Fatal(err)
	}
}

func TestAnOvertakenSpooledDelDoesNotDetachALaterContainer(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	// What a plugin leaves that waited in vain for a stopped agent, and was killed before it could ask again.
	stale := wire.Request{Version: wire.Version, Command: "DEL", ContainerID: "a", IfName: "eth0"}
	if _, err := wire.Spool(w.socket, stale); err != nil {
		t.Fatal(err)
	}
	addr := w.mustAdd("a", ns.Path)
	w.stop()
	w.start()
	if err := w.check("a", ns.Path); err != nil {
		t.Fatalf("after the restart: %v\n%s", err, w.said)
	}
	if again := w.mustAdd("a", ns.Path); again != addr {
		t.Fatalf("got %s after %s", again, addr)
	}
	// A DEL for an earlier namespace of the same id comes late.
	other := hosttest.NetNS(t)
	w.del("a", other.Path)
	if err := w.check("a", ns.Path); err != nil {
		t.Fatalf("after a DEL of another namespace: %v", err)
	}
}

func TestADelWhoseNameOfANamespaceIsAPlainFileByNowDetaches(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	w.mustAdd("a", ns.Path)
	left := filepath.Join(w.dir, "umounted")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.del("a", left)
	if err := w.check("a", ns.Path); err == nil {
		t.Fatal("the container is still attached")
	}
}

func TestAnotherPluginsDefaultRouteStays(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	sh(t, inNS("ip -n NS link add eth9 type veth peer name far9; ip -n NS addr add 10.9.9.1/24 dev eth9; ip -n NS link set eth9 up; ip -n NS route add default via 10.9.9.2", ns.Path))
	w.mustAdd("a", ns.Path)
	routes, _ := in(t, ns.Path, "ip route")
	if !strings.Contains(routes, "default via 10.9.9.2") || !strings.Contains(routes, "10.42.0.0/16 via 169.254.77.1 dev eth0") {
		t.Fatalf("routes:\n%s", routes)
	}
	if err := w.check("a", ns.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := w.add("host", "/proc/self/ns/net"); err == nil || !strings.Contains(err.Error(), "the agent's own") {
		t.Fatalf("ADD into the agent's namespace: %v", err)
	}
}

func TestAFullDiskLeaksNoAddressAndKeepsNoContainerAttached(t *testing.T) {
	w := newWorld(t)
	state := filepath.Join(w.dir, "state")
	sh(t, "mkdir "+state+" && mount -t tmpfs -o size=64k tmpfs "+state)
	t.Cleanup(func() { sh(t, "umount "+state) })
	w.start()
	ns, other := hosttest.NetNS(t), hosttest.NetNS(t)
	first := w.mustAdd("a", ns.Path)
	free := w.overlay.Networks()[0].Free
	fill := filepath.Join(state, "fill")
	sh(t, "dd if=/dev/zero of="+fill+" bs=4k 2>/dev/null || true")
	failed := 0
	for i := range 60 { // the journal's last page still has room for some records
		if _, err := w.add(fmt.Sprint("full", i), other.Path); err != nil {
			failed++
		} else {
			w.del(fmt.Sprint("full", i), other.Path)
		}
	}
	if failed == 0 {
		t.Fatal("no ADD failed on the full disk")
	}
	w.del("a", ns.Path)
	if out, err := in(t, other.Path, "ping -c1 -W1 "+first.String()); err == nil {
		t.Fatalf("still attached:\n%s", out)
	}
	sh(t, "rm "+fill)
	w.mustAdd("after", other.Path)
	w.eventually("the addresses are free", func() bool { return w.overlay.Networks()[0].Free == free })
}

func TestFixedAddressIsGivenOrItsHolderNamed(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns, other := hosttest.NetNS(t), hosttest.NetNS(t)
	rt := w.runtime("a", ns.Path)
	rt.CapabilityArgs = map[string]any{"ips": []string{"10.42.1.9/16"}}
	if _, err := w.cni.AddNetworkList(t.Context(), w.conf(), rt); err != nil {
		t.Fatal(err)
	}
	if out, _ := in(t, ns.Path, "ip addr show eth0"); !strings.Contains(out, "10.42.1.9/32") {
		t.Fatalf("got\n%s", out)
	}
	rt = w.runtime("b", other.Path)
	rt.Args = [][2]string{{"IP", "10.42.1.9"}}
	if _, err := w.cni.AddNetworkList(t.Context(), w.conf(), rt); err == nil || !strings.Contains(err.Error(), "10.42.1.9 is held by a/eth0") {
		t.Fatalf("got %v", err)
	}
}

func TestFortyParallelAddsAndDelsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	var spaces []*hosttest.NetNamespace
	for range 40 {
		spaces = append(spaces, hosttest.NetNS(t))
	}
	var wg sync.WaitGroup
	seen := sync.Map{}
	for i, ns := range spaces {
		wg.Go(func() {
			res, err := w.add(fmt.Sprint("p", i), ns.Path)
			if err != nil {
				t.Error(err)
				return
			}
			if other, twice := seen.LoadOrStore(res.IPs[0].Address.IP.String(), i); twice {
				t.Errorf("%s given to %d and %v", res.IPs[0].Address.IP, i, other)
			}
		})
	}
	wg.Wait()
	for i, ns := range spaces {
		wg.Go(func() {
			if err := w.cni.DelNetworkList(t.Context(), w.conf(), w.runtime(fmt.Sprint("p", i), ns.Path)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.eventually("nothing is left", func() bool { return !strings.Contains(sh(t, "ip -o link; ip route"), plan.LinkPrefix) })
}

func TestErrorsAreTheSpecs(t *testing.T) {
	w := newWorld(t)
	w.start()
	ns := hosttest.NetNS(t)
	for _, c := range []struct {
		name, conf, ns string
		code           uint
		want           string
	}{
		{"unknown network", `{"cniVersion":"1.0.0","name":"green","type":"fairlead-cni","socket":"SOCKET"}`, ns.Path, 7, `no network "green" on this host; there are ["blue"]`},
		{"unknown version", `{"cniVersion":"9.9.9","name":"blue","type":"fairlead-cni","socket":"SOCKET"}`, ns.Path, 1, `found "9.9.9"`},
		{"namespace gone", `{"cniVersion":"1.0.0","name":"blue","type":"fairlead-cni","socket":"SOCKET"}`, "/proc/1/ns/none", 3, "cannot be opened"},
		{"an id that no alias can hold", `{"cniVersion":"1.0.0","name":"blue","type":"fairlead-cni","socket":"SOCKET"}`, ns.Path, 4, "expected 1 to 120 letters"},
		{"bad JSON", `{"cniVersion":`, ns.Path, 6, "decode network configuration"},
	} {
		id := "x"
		if strings.Contains(c.name, "id") {
			id = strings.Repeat("x", 200)
		}
		bin, _ := buildPlugin()
		cmd := exec.Command(filepath.Join(bin, "fairlead-cni"))
		cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_IFNAME=eth0", "CNI_NETNS=" + c.ns}
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(c.conf, "SOCKET", w.socket))
		out, err := cmd.Output()
		var e types.Error
		if err == nil || json.Unmarshal(out, &e) != nil || e.Code != c.code || !strings.Contains(e.Msg+e.Details, c.want) {
			t.Errorf("%s: %v, %s", c.name, err, out)
		}
	}
}
