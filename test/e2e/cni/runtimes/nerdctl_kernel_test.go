//go:build kernel

package runtimes

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestNerdctlTakesTheInstalledConflist(t *testing.T) {
	nerdctl, err := filepath.Abs("../../../../.tools/nerdctl")
	if err != nil || !exists(nerdctl) {
		t.Skip("no nerdctl: make nerdctl builds it, in minutes")
	}
	d := hosttest.Containerd(t, false)
	dir := filepath.Dir(d.Address)
	a := start(t, dir+"/run/fairlead", t.TempDir())
	a.install(d, "")
	// It makes a bridge of its own before anything else, and for that wants to see the plugins.
	for _, name := range []string{"bridge", "host-local", "portmap", "firewall", "tuning"} {
		reference, err := filepath.Glob("../../../../.tools/cni-plugins-*/" + name)
		if err != nil || len(reference) == 0 {
			t.Skip("no plugin " + name + ": make nerdctl builds it")
		}
		b, err := os.ReadFile(reference[0])
		if err == nil {
			err = os.WriteFile(d.Seen("/opt/cni/bin/")+name, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(args ...string) string {
		t.Helper()
		out, err := d.Run(t.Context(), append([]string{nerdctl, "--address", d.Address, "--namespace", "default", "--data-root", dir + "/nerdctl",
			"--cni-path", d.Seen("/opt/cni/bin"), "--cni-netconfpath", dir + "/cni", "--cgroup-manager", "cgroupfs"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// It gives --ip and --mac-address to bridge and macvlan only, so here the pool chooses.
	ask("run", "-d", "--name", "web", "--net", "fairlead", "-p", "18082:80", "--cgroup-parent", d.Cgroup,
		"--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", daemons.BusyboxName, "/bin/sleep", "1000")
	addr := regexp.MustCompile(`10\.42\.\d+\.\d+`).FindString(ask("exec", "web", "/bin/ip", "addr", "show", "eth0"))
	if out, err := exec.Command("ping", "-c1", "-W1", addr).CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", addr, err, out)
	}
	if ports := a.ask("net", "ports"); !strings.Contains(ports, "18082") {
		t.Errorf("host ports: %s", ports)
	}
	ask("rm", "-f", "web")
	a.eventually("no attachment is left", func() bool { return a.attached(0) })
}
