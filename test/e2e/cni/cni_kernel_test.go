//go:build kernel

package cni_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/test/e2e/cni"
	"github.com/fairlead-dev/fairlead/test/e2e/cni/drivers"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

func TestMain(m *testing.M) {
	// Most of the time is waiting for a host to become calm.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// built is where binaries put its files.
var built string

// binaries gives a directory with fairlead, fairlead-cni and broken: that of FAIRLEAD_SUITE_BIN, else a fresh build.
var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("FAIRLEAD_SUITE_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "fl-suite-")
	if err != nil {
		return "", err
	}
	built = dir
	c := exec.Command("go", "build", "-o", dir+"/", "github.com/fairlead-dev/fairlead/cmd/...", "github.com/fairlead-dev/fairlead/test/e2e/cni/broken")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func fairlead(t *testing.T) cni.Plugin {
	t.Helper()
	hosttest.Require(t, "ip", "nft", "ping", "nsenter", "conntrack")
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return drivers.Fairlead(bin)
}

func TestFairleadPassesEveryCase(t *testing.T) {
	t.Parallel()
	p := fairlead(t)
	for _, c := range cni.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if o := cni.Run(t.Context(), p, c); o.Err != nil || o.Skipped != "" {
				t.Errorf("%s\n%v%s", c.Says, o.Err, o.Skipped)
			}
		})
	}
}

// faultOf says for which faults of the broken plugin each case must fail.
var faultOf = map[string][]string{
	"version": {"version"}, "result-versions": {"result-version"}, "errors": {"error-code"},
	"status": {"status-bad"}, "status-down": {"status-blind"}, "add-down": {"add-blind"},
	"gc": {"gc-nothing"}, "gc-others": {"gc-everything"}, "previous": {"previous-dropped"},
	"add": {"result-mac", "dead"}, "first-packet": {"dead"}, "add-twice": {"second-address"}, "add-taken-name": {"takes-over"},
	"add-no-namespace": {"namespace-blind"}, "interfaces": {"del-all"}, "default-route": {"route-thief"},
	"del": {"del-nothing"}, "del-without-add": {"del-strict"}, "del-twice": {"del-once"}, "del-namespace-gone": {"del-strict"},
	"del-link-gone": {"del-strict"}, "del-down": {"del-not-kept"}, "add-again": {"leak-link"}, "conntrack": {"conntrack-kept"},
	"check": {"check-bad"}, "check-without-add": {"check-blind"}, "check-address": {"check-blind", "check-mute"}, "check-route": {"check-mute"},
	"check-link": {"check-blind"}, "check-down": {"check-blind"}, "check-mtu": {"check-blind"}, "check-mac": {"check-mute"},
	"check-neighbour": {"check-blind"}, "check-host-route": {"check-sabotage"}, "check-rules": {"check-sabotage"},
	"ip-args": {"wishes-ignored"}, "ip-capability": {"wishes-ignored"}, "ip-taken": {"wishes-ignored"}, "mac": {"wishes-ignored"}, "port": {"wishes-ignored"},
	"kill-add": {"leak-when-killed"}, "kill-add-no-del": {"leak-when-killed"}, "kill-del": {"leak-when-killed"},
	"kill-daemon": {"dead"}, "no-del": {"leak-link"}, "parallel": {"one-address"}, "parallel-same": {"leak-link"},
}

func TestEachCaseFailsForItsFault(t *testing.T) {
	t.Parallel()
	real := fairlead(t)
	broken := real
	broken.Name, broken.Patience = "broken", time.Second
	conflist := real.Conflist
	broken.Conflist = func(h *cni.Host) string { return replaceType(conflist(h)) }
	for _, c := range cni.Cases() {
		if len(faultOf[c.Name]) == 0 {
			t.Errorf("no fault is known for which %s fails", c.Name)
		}
		for _, fault := range faultOf[c.Name] {
			t.Run(c.Name+" "+fault, func(t *testing.T) {
				t.Parallel()
				p := broken
				p.Env = []string{"CNI_SUITE_FAULT=" + fault, "CNI_SUITE_REAL=" + filepath.Join(real.Path[0], "fairlead-cni")}
				o := cni.Run(t.Context(), p, c)
				if o.Err == nil {
					t.Errorf("%s passes with fault %s%s", c.Name, fault, o.Skipped)
				}
				t.Log(o.Err)
			})
		}
	}
}

func TestTheBrokenPluginWithoutAFaultPasses(t *testing.T) {
	t.Parallel()
	p := fairlead(t)
	conflist := p.Conflist
	p.Env = []string{"CNI_SUITE_REAL=" + filepath.Join(p.Path[0], "fairlead-cni")}
	p.Conflist = func(h *cni.Host) string { return replaceType(conflist(h)) }
	for _, c := range cni.Cases() {
		if c.Name == "add" || c.Name == "gc" || c.Name == "check-address" {
			if o := cni.Run(t.Context(), p, c); o.Err != nil {
				t.Errorf("%s: %v", c.Name, o.Err)
			}
		}
	}
}

func replaceType(conflist string) string {
	return strings.Replace(conflist, `"type":"fairlead-cni"`, `"type":"broken"`, 1)
}

func TestReferencePluginsAfterOursGetOurResult(t *testing.T) {
	t.Parallel()
	p := fairlead(t)
	reference, err := filepath.Glob("../../../.tools/cni-plugins-*/tuning")
	if err != nil || len(reference) == 0 {
		t.Skip("make suite-cni builds the reference plugins; they are not there")
	}
	dir, err := filepath.Abs(filepath.Dir(reference[0]))
	if err != nil {
		t.Fatal(err)
	}
	p.Path = append(p.Path, dir)
	p.Conflist = func(h *cni.Host) string {
		return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"suite","plugins":[{"type":"fairlead-cni","socket":"%s/run/cni.sock","capabilities":{"ips":true}},
			{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.accept_source_route":"0"}},
			{"type":"bandwidth","ingressRate":100000000,"ingressBurst":10000000},
			{"type":"portmap","capabilities":{"portMappings":true}}]}`, h.Dir)
	}
	for _, c := range cni.Cases() {
		if slices.Contains([]string{"add", "check", "check-address", "check-mac", "del", "port"}, c.Name) {
			if o := cni.Run(t.Context(), p, c); o.Err != nil {
				t.Errorf("%s: %v", c.Name, o.Err)
			}
		}
	}
}
