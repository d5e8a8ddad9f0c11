//go:build kernel

package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/e2e/sim"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// world is two hosts, and a third with etcd.
type world struct {
	t      *testing.T
	bin    string
	sim    *sim.Cluster
	etcd   *daemons.EtcdDaemon
	agents map[string]*exec.Cmd
}

func newWorld(t *testing.T) *world {
	t.Helper()
	hosttest.Root(t)
	hosttest.Require(t, "etcd", "etcdctl", "ip", "nft", "nsenter", "ping")
	w := &world{t: t, bin: t.TempDir(), agents: map[string]*exec.Cmd{}}
	build := exec.Command("go", "build", "-o", w.bin, "./cmd/...")
	build.Dir, build.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var err error
	if w.sim, err = sim.New(t.Context(), "fairlead-etcd", "web1", "web2", "store"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for name := range w.agents {
				b, _ := os.ReadFile(w.log(name)) // what is there
				t.Logf("agent of %s:\n%s", name, b)
			}
		}
		if err := w.sim.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(w.sim.Dir); err != nil {
			t.Error(err)
		}
	})
	host := w.sim.Host("store")
	dir := filepath.Join(host.Dir, "etcd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if w.etcd, err = daemons.Etcd(t.Context(), daemons.Options{Dir: dir, Prefix: host.Prefix(), Address: host.Address.String() + ":2379"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.etcd.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"web1", "web2"} {
		h := w.sim.Host(name)
		text := fmt.Sprintf("node: {name: %s, address: %s}\nlisten: 127.0.0.1:0\noverlay:\n  store: etcd\n  etcd: {endpoints: [%q], session: 3s, grace: 2s}\n", name, h.Address, w.etcd.URL)
		if err := os.WriteFile(h.Path("/etc/fairlead/fairlead.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start(name)
	}
	return w
}

func (w *world) log(host string) string { return filepath.Join(w.sim.Host(host).Dir, "agent.log") }

func (w *world) start(host string) {
	w.t.Helper()
	log, err := os.OpenFile(w.log(host), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd := w.sim.Host(host).Command(context.Background(), filepath.Join(w.bin, "fairlead"), "agent")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.agents[host] = cmd
	w.t.Cleanup(func() { w.end(cmd, syscall.SIGTERM) })
}

// end ends an agent; a second time it does nothing.
func (w *world) end(cmd *exec.Cmd, how syscall.Signal) {
	if cmd.ProcessState == nil {
		_ = syscall.Kill(-cmd.Process.Pid, how) // the group: shell, nsenter, agent
		_ = cmd.Wait()
	}
}

func (w *world) kill(host string) { w.end(w.agents[host], syscall.SIGKILL) }

func (w *world) run(host string, argv ...string) (string, error) {
	return w.sim.Host(host).Run(w.t.Context(), argv[0], argv[1:]...)
}

func (w *world) sh(host, script string) string {
	w.t.Helper()
	out, err := w.run(host, "sh", "-ec", script)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) fairlead(host string, args ...string) (string, error) {
	return w.run(host, append([]string{filepath.Join(w.bin, "fairlead")}, args...)...)
}

type network struct {
	Name   string
	Blocks []string
	Peers  []struct {
		Name   string
		Blocks []string
		Silent bool
	}
}

// until waits until a host's network is as wanted.
func (w *world) until(host, name, what string, wanted func(network) bool) network {
	w.t.Helper()
	last := ""
	for began := time.Now(); time.Since(began) < hosttest.Bound(time.Minute); time.Sleep(20 * time.Millisecond) { // a command has no events
		out, err := w.fairlead(host, "net", "ls", "--json")
		if last = fmt.Sprint(out, err); err != nil {
			continue
		}
		var networks []network
		if err := json.Unmarshal([]byte(out), &networks); err != nil {
			w.t.Fatal(err)
		}
		for _, n := range networks {
			if n.Name == name && wanted(n) {
				return n
			}
		}
	}
	w.t.Fatalf("%s: %s: %s", host, what, last)
	return network{}
}

func whole(n network) bool {
	return len(n.Blocks) == 1 && len(n.Peers) == 1 && len(n.Peers[0].Blocks) == 1 && !n.Peers[0].Silent
}

// cni calls the plugin for a container, which is a namespace of that name on the host.
func (w *world) cni(command, host, container, network string) (string, error) {
	return w.run(host, "sh", "-ec", fmt.Sprintf(
		`echo '{"cniVersion":"1.0.0","name":%q,"type":"fairlead-cni"}' | CNI_COMMAND=%s CNI_CONTAINERID=%s CNI_NETNS=/run/netns/%s CNI_IFNAME=eth0 CNI_PATH=%s %s/fairlead-cni`,
		network, command, container, container, w.bin, w.bin))
}

func (w *world) add(host, container, network string) (addr string) {
	w.t.Helper()
	w.sh(host, "ip netns add "+container)
	out, err := w.cni("ADD", host, container, network)
	if err != nil {
		w.t.Fatalf("ADD %s on %s: %v %s", container, host, err, out)
	}
	var result struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.IPs) == 0 {
		w.t.Fatalf("ADD %s: %v: %s", container, err, out)
	}
	addr, _, _ = strings.Cut(result.IPs[0].Address, "/")
	return addr
}

// pings waits until a container reaches another: what a host has heard of is in its kernel a moment later.
func (w *world) pings(host, container, addr string) {
	w.t.Helper()
	if out, err := w.run(host, "nsenter", "--net=/run/netns/"+container, "ping", "-c1", "-i0.2", "-w10", addr); err != nil {
		w.t.Errorf("%s does not reach %s: %v %s\n%s", container, addr, err, out, w.sh(host, "ip route; bridge fdb | grep dst; ip neigh; nft list table inet fairlead | grep -v comment"))
	}
}

func TestTwoHostsShareNetworksInEtcdAndGoOnWithoutIt(t *testing.T) {
	w := newWorld(t)
	w.until("web1", "fairlead", "the network of the configuration", whole)
	began := time.Now()
	if out, err := w.fairlead("web1", "net", "create", "green", "--cidr", "10.43.0.0/16", "--vni", "43"); err != nil {
		t.Fatalf("create: %v %s", err, out)
	}
	w.until("web2", "green", "created on web1", whole)
	t.Logf("green was on the other host, with a block, after %s", time.Since(began).Round(time.Millisecond))
	w.until("web1", "green", "the other's block", whole)
	w.add("web1", "c1", "green")
	c2 := w.add("web2", "c2", "green")
	w.pings("web1", "c1", c2)
	for began := time.Now(); ; { // that it is used is told in the background
		out, err := w.fairlead("web1", "net", "rm", "green")
		if err != nil && strings.Contains(err.Error(), "containers are on it: c1") {
			break
		}
		if err == nil || time.Since(began) > time.Minute {
			t.Fatalf("a network that is used was removed: %s %v", out, err)
		}
	}
	if out, err := w.fairlead("web1", "net", "forget-node", "web2"); err == nil || !strings.Contains(err.Error(), "web2 (machine id") {
		t.Fatalf("a living node was forgotten: %s %v", out, err)
	}

	w.etcd.Kill()
	w.pings("web1", "c1", c2)
	c3 := w.add("web1", "c3", "green")
	w.pings("web2", "c2", c3)
	w.kill("web2")
	w.pings("web1", "c1", c2)
	w.start("web2") // it knows what it holds by itself
	w.until("web2", "green", "after a restart without etcd", func(n network) bool { return len(n.Blocks) == 1 && len(n.Peers) == 1 })
	c4 := w.add("web2", "c4", "green")
	w.pings("web1", "c1", c4)
	if out, err := w.cni("DEL", "web2", "c4", "green"); err != nil {
		t.Fatalf("DEL: %v %s", err, out)
	}
	if err := w.etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("web1", "green", "etcd is back", whole)
	w.until("web2", "green", "etcd is back", whole)
	w.pings("web1", "c1", c2)

	w.kill("web2")
	w.until("web1", "green", "web2 is silent and has what it had", func(n network) bool {
		return len(n.Peers) == 1 && n.Peers[0].Silent && len(n.Peers[0].Blocks) == 1
	})
	w.pings("web1", "c1", c2)
	w.start("web2")
	w.until("web2", "green", "web2 is back", whole)
	if out, err := w.fairlead("web2", "net", "leave"); err == nil || !strings.Contains(err.Error(), "containers are attached: c2") {
		t.Fatalf("a host with containers left: %s %v", out, err)
	}
	if out, err := w.cni("DEL", "web2", "c2", "green"); err != nil {
		t.Fatalf("DEL: %v %s", err, out)
	}
	if out, err := w.fairlead("web2", "net", "leave"); err != nil {
		t.Fatalf("leave: %s %v", out, err)
	}
	w.until("web1", "green", "web2 has left", func(n network) bool { return len(n.Peers) == 0 })
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) { // routes follow by a repair
		routes := w.sh("web1", "ip route show dev fl-vx43; bridge fdb show dev fl-vx43 | grep dst || true")
		if strings.TrimSpace(routes) == "" {
			break
		}
		if time.Since(began) > hosttest.Bound(time.Minute) {
			t.Fatalf("entries of a host that has left: %s", routes)
		}
	}
}
