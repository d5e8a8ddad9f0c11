//go:build kernel

package restart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/cni"
	"github.com/fairlead-dev/fairlead/test/e2e/cni/drivers"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// built is where binaries put its files.
var built string

// builds are the version stamps; the directory of each has a fairlead, and the first one's has fairlead-cni.
var builds = []string{"one", "two"}

// binaries gives a directory with one directory for each of builds: that of FAIRLEAD_RESTART_BIN, else a fresh build.
var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("FAIRLEAD_RESTART_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "fl-restart-")
	if err != nil {
		return "", err
	}
	built = dir
	const module = "github.com/fairlead-dev/fairlead"
	for _, version := range builds {
		c := exec.Command("go", "build", "-ldflags", "-s -w -X main.version="+version, "-o", filepath.Join(dir, version)+"/", module+"/cmd/fairlead", module+"/cmd/fairlead-cni")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	return dir, nil
})

// outsideAddr is the host's gateway: somebody in another network namespace.
const outsideAddr = "192.0.2.1"

// world is a host with its gateway outside, and an agent that comes and goes.
type world struct {
	*cni.World
	t       *testing.T
	bin     string
	outside *hosttest.NetNamespace
	notify  *net.UnixConn
	agent   *drivers.Process
	wrap    []string // the command that starts the agent, if any
}

func newWorld(t *testing.T) *world {
	t.Helper()
	hosttest.Require(t, "ip", "nft", "nsenter", "stdbuf", "unshare")
	hosttest.Root(t)
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, bin: bin, outside: hosttest.NetNS(t)}
	if w.World, err = cni.NewWorld(drivers.Fairlead(filepath.Join(bin, builds[0]))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	w.sh("ip link set far0 netns " + w.outside.Path + " && nsenter --net=" + w.outside.Path + " sh -ec 'ip addr add " + outsideAddr + "/24 dev far0; ip link set far0 up'")
	w.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.notifyPath(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.notify.Close() }) // nothing is to be flushed
	t.Cleanup(w.stop)
	return w
}

func (w *world) notifyPath() string { return filepath.Join(w.Dir, "notify") }
func (w *world) configPath() string { return filepath.Join(w.Dir, "fairlead.yaml") }

func (w *world) sh(script string) string {
	w.t.Helper()
	out, err := w.Sh(script)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// configure writes the configuration: more is what stands beside the directories.
func (w *world) configure(stateDir, more string) {
	w.t.Helper()
	text := fmt.Sprintf("run_dir: %s/run\nstate_dir: %s\nlisten: 127.0.0.1:0\nnode: {name: web1}\nruntimes: {run: %s}\n%s", w.Dir, stateDir, w.Dir, more)
	if err := os.WriteFile(w.configPath(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start starts a build of the agent and waits for its READY=1 (sd_notify(3)); it gives how long that took.
func (w *world) start(version string) time.Duration {
	w.t.Helper()
	began := time.Now()
	argv := append(append([]string{}, w.wrap...), filepath.Join(w.bin, version, "fairlead"), "agent", "--config", w.configPath())
	var err error
	if w.agent, err = drivers.Start(w.NetNS(), []string{"NOTIFY_SOCKET=" + w.notifyPath()}, argv...); err != nil {
		w.t.Fatal(err)
	}
	if err := w.awaitReady(); err != nil {
		w.t.Fatalf("agent: %v\n%s", err, w.agent.Said())
	}
	return time.Since(began)
}

func (w *world) awaitReady() error {
	if err := w.notify.SetReadDeadline(time.Now().Add(hosttest.Bound(time.Minute))); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := w.notify.Read(buf)
		if err != nil {
			return fmt.Errorf("wait for READY=1: %w", err)
		}
		for line := range bytes.Lines(buf[:n]) {
			if string(bytes.TrimSpace(line)) == "READY=1" {
				return nil
			}
		}
	}
}

// kill ends the agent by SIGKILL.
func (w *world) kill() {
	if w.agent != nil {
		_ = w.agent.Kill() // it has no error to give
		w.agent = nil
	}
}

func (w *world) stop() {
	if w.agent == nil {
		return
	}
	if err := w.agent.Stop(); err != nil {
		w.t.Error(err)
	}
	w.agent = nil
}

// status is what `fairlead status` says, as far as tests look at it.
type status struct {
	Version  string
	Networks []struct {
		Name              string
		Attachments, Free int
	}
	Sinks []struct{ Name string }
}

func (w *world) status() (s status) {
	w.t.Helper()
	out, err := exec.Command(filepath.Join(w.bin, builds[0], "fairlead"), "status", "--json", "--socket", filepath.Join(w.Dir, "run/agent.sock")).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // 1: something is wrong on this host, such as no container runtime
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return s
}

// line is the status in short: "one suite=2/65531 sinks".
func (s status) line() string {
	var b strings.Builder
	b.WriteString(s.Version)
	for _, n := range s.Networks {
		fmt.Fprintf(&b, " %s=%d/%d", n.Name, n.Attachments, n.Free)
	}
	for _, sink := range s.Sinks {
		b.WriteString(" " + sink.Name)
	}
	return b.String()
}

// attach attaches a new container through fairlead-cni.
func (w *world) attach(id string, caps map[string]any) (*hosttest.NetNamespace, error) {
	ns := hosttest.NetNS(w.t)
	_, err := w.Add(w.t.Context(), cni.Call{ID: id, NetNS: ns.Path, Caps: caps})
	return ns, err
}
