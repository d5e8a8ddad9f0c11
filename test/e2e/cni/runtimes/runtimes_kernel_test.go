//go:build kernel

package runtimes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/e2e/cni/drivers"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestMain(m *testing.M) { hosttest.MainInNetNS(m) }

// agent is a running fairlead with default networks.
type agent struct {
	t   *testing.T
	bin string // fairlead and fairlead-cni
	run string // its run_dir
}

// start runs an agent whose run_dir is run, and which looks for runtimes in the directory runtimes.
func start(t *testing.T, run, runtimes string) *agent {
	t.Helper()
	hosttest.Require(t, "ip", "nft", "nsenter", "ping")
	if out, err := exec.Command("sh", "-c", "ip link add up0 type veth peer name far0 && ip addr add 192.0.2.11/24 dev up0 && ip link set up0 up && ip link set far0 up").CombinedOutput(); err != nil {
		t.Fatalf("make uplink: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", "up0").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	a := &agent{t: t, bin: os.Getenv("FAIRLEAD_SUITE_BIN"), run: run}
	dir := hosttest.Dir(t)
	if a.bin == "" {
		a.bin = dir
		c := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "github.com/fairlead-dev/fairlead/cmd/...")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	config := filepath.Join(dir, "fairlead.yaml")
	text := fmt.Sprintf("run_dir: %s\nstate_dir: %s/state\nlisten: 127.0.0.1:0\nruntimes: {run: %s}\n", run, dir, runtimes)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := drivers.Start(fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), nil, filepath.Join(a.bin, "fairlead"), "agent", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(p.Said())
		}
	})
	a.eventually("the agent is up", func() bool { return strings.Contains(a.ask("net", "ls"), "fairlead") })
	return a
}

// ask gives what an operator command prints.
func (a *agent) ask(args ...string) string {
	out, _ := exec.Command(filepath.Join(a.bin, "fairlead"), append(args, "--json", "--socket", filepath.Join(a.run, "agent.sock"))...).Output()
	return string(out)
}

func (a *agent) eventually(what string, ok func() bool) {
	a.t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond) // it is another process, which tells us nothing
	}
	a.t.Fatalf("not within 20 s: %s\n%s\n%s", what, a.ask("net", "ls"), a.ask("ps"))
}

// attached tells how many attachments the agent has.
func (a *agent) attached(n int) bool {
	return strings.Contains(a.ask("net", "ls"), fmt.Sprintf(`"attachments": %d`, n))
}

// install gives a containerd the plugin and the conflist that `make install` writes, with another owner if asked for.
func (a *agent) install(d *daemons.ContainerdDaemon, owner string) {
	a.t.Helper()
	conflist, err := os.ReadFile("../../../../deploy/10-fairlead.conflist")
	if err != nil {
		a.t.Fatal(err)
	}
	if owner != "" {
		conflist = []byte(strings.Replace(string(conflist), `"type": "fairlead-cni",`, `"type": "fairlead-cni", "owner": "`+owner+`",`, 1))
		if !strings.Contains(string(conflist), owner) {
			a.t.Fatal("the conflist has another form now")
		}
	}
	plugin, err := os.ReadFile(filepath.Join(a.bin, "fairlead-cni"))
	if err != nil {
		a.t.Fatal(err)
	}
	bin := d.Seen("/opt/cni/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(bin+"/fairlead-cni", plugin, 0o755); err != nil {
		a.t.Fatal(err)
	}
	// As make install does: containerd's CRI adds no pod to any network without a plugin of that name.
	if err := os.Symlink("fairlead-cni", bin+"/loopback"); err != nil {
		a.t.Fatal(err)
	}
	conf := filepath.Join(filepath.Dir(d.Address), "cni")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(conf+"/10-fairlead.conflist", conflist, 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// client speaks CRI to d.
func client(t *testing.T, d *daemons.ContainerdDaemon) cri.RuntimeServiceClient {
	t.Helper()
	conn, err := d.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return cri.NewRuntimeServiceClient(conn)
}

// pod runs a sandbox and gives its id and address.
func pod(t *testing.T, d *daemons.ContainerdDaemon, name string, change func(*cri.PodSandboxConfig)) (id, addr string) {
	t.Helper()
	c := client(t, d)
	conf := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: name},
		Linux:    &cri.LinuxPodSandboxConfig{CgroupParent: d.Cgroup, SecurityContext: &cri.LinuxSandboxSecurityContext{}},
	}
	if change != nil {
		change(conf)
	}
	var made *cri.RunPodSandboxResponse
	var err error
	for range 100 {
		// containerd reads a new conflist when it hears of it.
		if made, err = c.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: conf}); err == nil || !strings.Contains(err.Error(), "cni plugin not initialized") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, d, made.PodSandboxId) })
	status, err := c.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: made.PodSandboxId})
	if err != nil {
		t.Fatal(err)
	}
	return made.PodSandboxId, status.Status.Network.GetIp()
}

func remove(t *testing.T, d *daemons.ContainerdDaemon, id string) {
	t.Helper()
	c := client(t, d)
	ctx := t.Context()
	if ctx.Err() != nil {
		return // the daemon is stopped with its containers next
	}
	if _, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Error(err)
	}
	if _, err := c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Error(err)
	}
}

func TestCRIPodsGetWhatTheyAskForThroughTheInstalledConflist(t *testing.T) {
	d := hosttest.Containerd(t, true)
	dir := filepath.Dir(d.Address)
	a := start(t, dir+"/run/fairlead", t.TempDir())
	a.install(d, "")
	id, addr := pod(t, d, "web", func(c *cri.PodSandboxConfig) {
		c.Annotations = map[string]string{"fairlead.ips": "10.42.9.77"}
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 18080}}
	})
	if addr != "10.42.9.77" {
		t.Errorf("the pod asked for 10.42.9.77 and has %s", addr)
	}
	if out, err := exec.Command("ping", "-c1", "-W1", addr).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if ports := a.ask("net", "ports"); !strings.Contains(ports, "18080") {
		t.Errorf("host ports: %s", ports)
	}
	// `make crictl` takes minutes, so it is not a must.
	if crictl, err := filepath.Abs("../../../../.tools/crictl"); err != nil || !exists(crictl) {
		t.Log("crictl is not asked: make crictl builds it")
	} else {
		out, err := exec.Command(crictl, "--runtime-endpoint", "unix://"+d.Seen(d.Address), "inspectp", id).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"ip": "10.42.9.77"`) {
			t.Errorf("crictl: %v\n%s", err, out)
		}
	}
	other, second := pod(t, d, "till", nil)
	if second == addr || second == "" {
		t.Errorf("the second pod has %q", second)
	}
	if !a.attached(2) {
		t.Errorf("attachments: %s", a.ask("net", "ls"))
	}
	remove(t, d, id)
	remove(t, d, other)
	a.eventually("no attachment is left", func() bool { return a.attached(0) })
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestGCOfOneContainerdLeavesTheOthersPodsAndWhatIsInUse(t *testing.T) {
	one, two := hosttest.Containerd(t, true), hosttest.Containerd(t, true)
	dir, other := filepath.Dir(one.Address), filepath.Dir(two.Address)
	found := t.TempDir()
	for name, d := range map[string]*daemons.ContainerdDaemon{"containerd": one, "k3s/containerd": two} {
		link := filepath.Join(found, name, "containerd.sock")
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(d.Address, link); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, dir+"/run/fairlead", found)
	// Both see the one agent under the path that the conflist takes for granted.
	if err := os.MkdirAll(other+"/run/fairlead", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/run/fairlead/cni.sock", other+"/run/fairlead/cni.sock"); err != nil {
		t.Fatal(err)
	}
	a.install(one, "one")
	a.install(two, "two")
	_, kept := pod(t, one, "kept", nil)
	_, theirs := pod(t, two, "theirs", nil)

	// What the first one lost: attached with its conflist, and known to no runtime.
	list, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"fairlead","plugins":[{"type":"fairlead-cni","owner":"one","socket":"%s/cni.sock"}]}`, a.run))
	if err != nil {
		t.Fatal(err)
	}
	plugin := libcni.NewCNIConfigWithCacheDir([]string{a.bin}, t.TempDir(), nil)
	stale := hosttest.NetNS(t)
	if _, err := plugin.AddNetworkList(t.Context(), list, &libcni.RuntimeConf{ContainerID: "stale", NetNS: stale.Path, IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	a.eventually("the agent sees both runtimes' pods", func() bool {
		ps := a.ask("ps")
		return strings.Contains(ps, "kept") && strings.Contains(ps, "theirs")
	})
	if !a.attached(3) {
		t.Fatalf("attachments: %s", a.ask("net", "ls"))
	}
	// A list that is wrong: it has forgotten the pod that runs.
	gc := libcni.NewCNIConfigWithCacheDir([]string{a.bin}, t.TempDir(), nil)
	if err := gc.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}); err != nil {
		t.Fatal(err)
	}
	if !a.attached(2) {
		t.Errorf("attachments: %s", a.ask("net", "ls"))
	}
	for _, addr := range []string{kept, theirs} {
		if out, err := exec.Command("ping", "-c1", "-W1", addr).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", addr, err, out)
		}
	}
	a.eventually("the stale one's link is gone", func() bool { // links go in batches, some 20 ms later
		links, err := exec.Command("nsenter", "--net="+stale.Path, "ip", "-o", "link").Output()
		return err == nil && !strings.Contains(string(links), " eth0")
	})
}

func TestPodmansCNIBackendTakesTheInstalledConflist(t *testing.T) {
	hosttest.Require(t, "podman", "runc", "busybox")
	files := hosttest.Dir(t)
	conf := fmt.Sprintf("[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [%q]\n", files+"/bin")
	if err := os.Mkdir(files+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files+"/containers.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_CONF", files+"/containers.conf")
	d := hosttest.PodmanAPI(t)
	a := start(t, filepath.Dir(d.Log)+"/run/fairlead", t.TempDir())
	for from, to := range map[string]string{"../../../../deploy/10-fairlead.conflist": filepath.Dir(d.Log) + "/cni/10-fairlead.conflist", filepath.Join(a.bin, "fairlead-cni"): files + "/bin/fairlead-cni"} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Client(t.Context(), "run", "-d", "--name", "web", "--network", "fairlead", "--ip", "10.42.9.88", "--mac-address", "02:00:5e:10:20:30", "-p", "18081:80", "--cgroup-parent", d.Cgroup,
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "bb", "/bin/sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ping", "-c1", "-W1", "10.42.9.88").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := d.Client(t.Context(), "exec", "web", "/bin/ip", "link", "show", "eth0"); err != nil || !strings.Contains(out, "02:00:5e:10:20:30") {
		t.Errorf("%v\n%s", err, out)
	}
	if ports := a.ask("net", "ports"); !strings.Contains(ports, "18081") {
		t.Errorf("host ports: %s", ports)
	}
	if _, err := d.Client(t.Context(), "rm", "-f", "-t", "0", "web"); err != nil {
		t.Fatal(err)
	}
	a.eventually("no attachment is left", func() bool { return a.attached(0) })
}
