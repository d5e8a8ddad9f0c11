//go:build kernel

// Package prometheus lets a real Prometheus scrape a real agent over real containers that misbehave, and waits for our
// alerts to fire.
package prometheus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/fairlead-dev/fairlead/test/daemons"
	"github.com/fairlead-dev/fairlead/test/hosttest"
)

// The test has a network namespace of its own, so these ports are free.
const (
	agentAddr = "127.0.0.1:9478"
	promAddr  = "127.0.0.1:9090"
	password  = "capstan"
)

// misbehaving are the containers, and the alert that each must raise.
var misbehaving = []struct {
	name, alert string
	flags       []string
	script      string
}{
	{"throttled", "FairleadContainerThrottled", []string{"--cpu-quota", "10000", "--cpu-period", "100000"}, "while :; do :; done"},
	{"nearlimit", "FairleadContainerNearMemoryLimit", []string{"--memory-limit", "67108864"}, "dd if=/dev/zero of=/dev/shm/a bs=1M count=60; sleep 1000"},
	{"oomkilled", "FairleadContainerOOMKilled", []string{"--memory-limit", "33554432"}, "while :; do tail /dev/zero; sleep 1; done"},
}

func TestPrometheusScrapesTheAgentAndTheAlertsFire(t *testing.T) {
	hosttest.Require(t, "prometheus", "promtool", "containerd", "ctr", "runc", "busybox", "nsenter")
	if !hosttest.InOwnNetNS(t) {
		return
	}
	bin := build(t)
	dir := hosttest.Dir(t)
	d := hosttest.Containerd(t, false)
	config := configure(t, dir, d)
	agent := start(t, dir, "agent", bin, "agent", "--config", config)
	await(t, "the agent's page", 30*time.Second, func() error { _, err := page(); return err })
	for _, c := range misbehaving {
		args := append([]string{"run", "-d"}, c.flags...)
		if _, err := d.Ctr(t.Context(), "default", append(args, daemons.BusyboxName, c.name, "sh", "-c", c.script)...); err != nil {
			t.Fatal(err)
		}
	}
	rules := shortened(t, dir)
	prometheus(t, dir, rules)

	t.Run("alerts", func(t *testing.T) {
		for _, c := range misbehaving {
			await(t, c.alert, 2*time.Minute, func() error { return fires(c.alert, "name", c.name) })
		}
		for _, c := range misbehaving { // each raises its own, and only its own
			for _, other := range misbehaving {
				if c.alert != other.alert && fires(c.alert, "name", other.name) == nil {
					t.Errorf("%s fires for %s", c.alert, other.name)
				}
			}
		}
	})
	t.Run("page", checkPage)
	t.Run("commands", func(t *testing.T) { commands(t, bin, config) })
	t.Run("killed", func(t *testing.T) {
		before := usage(t, bin, config, "throttled")
		_ = agent.Process.Kill()
		_ = agent.Wait()
		await(t, "FairleadAgentDown", time.Minute, func() error { return fires("FairleadAgentDown", "job", "fairlead") })
		start(t, dir, "agent", bin, "agent", "--config", config)
		await(t, "more CPU time than before", time.Minute, func() error {
			if after := usage(t, bin, config, "throttled"); after.CPUSeconds <= before.CPUSeconds+0.3 {
				return fmt.Errorf("%+v, before %+v", after, before)
			}
			return nil
		})
		after, _ := cpuOf("throttled")
		got := usage(t, bin, config, "throttled")
		if got.CPUSeconds < after*0.9-0.5 || got.CPUSeconds > after*1.1+0.5 {
			t.Errorf("accounted %v CPU seconds of about %v", got.CPUSeconds, after)
		}
	})
}

func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fairlead")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/fairlead")
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func configure(t *testing.T, dir string, d *daemons.ContainerdDaemon) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "web.yml"), fmt.Sprintf("basic_auth_users: {prometheus: %q}\n", hash))
	return write(t, filepath.Join(dir, "fairlead.yaml"), fmt.Sprintf(`node: {name: mast, address: 127.0.0.1}
run_dir: %[1]s/fl
state_dir: %[1]s/state
listen: %[2]s
web_config_file: %[1]s/web.yml
runtimes: {run: %[1]s/none, sockets: [%[3]s]}
metrics: {history: {on: true, interval: 1s, slot: 5s}}
`, dir, agentAddr, d.Address))
}

// shortened copies our rules with seconds where they have minutes: nothing else is changed.
func shortened(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob("../../../deploy/prometheus/*.rules.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("rules: %q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		short := regexp.MustCompile(`for: \d+[mh]`).ReplaceAll(text, []byte("for: 2s"))
		short = regexp.MustCompile(`\[\d+[mh]\]`).ReplaceAll(short, []byte("[10s]"))
		write(t, filepath.Join(dir, filepath.Base(file)), string(short))
	}
	pattern := filepath.Join(dir, "*.rules.yml")
	if out, err := exec.Command("promtool", append([]string{"check", "rules"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	return pattern
}

func prometheus(t *testing.T, dir, rules string) {
	t.Helper()
	config := write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: fairlead
    basic_auth: {username: prometheus, password: %s}
    static_configs: [{targets: [%q]}]
`, rules, password, agentAddr))
	start(t, dir, "prometheus", "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+promAddr)
	await(t, "Prometheus", 30*time.Second, func() error {
		resp, err := http.Get("http://" + promAddr + "/-/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
}

// fires tells whether the alert fires for a series with this label.
func fires(alert, label, value string) error {
	resp, err := http.Get("http://" + promAddr + "/api/v1/alerts")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	for _, a := range answer.Data.Alerts {
		if a.Labels["alertname"] == alert && a.Labels[label] == value && a.State == "firing" {
			return nil
		}
	}
	return fmt.Errorf("%s does not fire for %s=%s; there are %s", alert, label, value, body)
}

func page() (string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+agentAddr+"/metrics", nil)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth("prometheus", password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func checkPage(t *testing.T) {
	text, err := page()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// The names are cAdvisor's, and so is what promtool says of them.
		if !strings.HasPrefix(line, "container_") && !strings.HasPrefix(line, "machine_") {
			t.Errorf("promtool check metrics: %s", line)
		}
		t.Logf("promtool: %s", line)
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Error(err)
	}
	for _, name := range []string{"fairlead_advice_cpu_limit_cores{", "fairlead_advice_memory_limit_bytes{", "fairlead_advice_throttled_ratio{"} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("the page has no %s", name)
		}
	}
	resp, err := http.Get("http://" + agentAddr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a password: %s", resp.Status)
	}
}

// cpuOf gives the CPU seconds that the page shows for a container.
func cpuOf(name string) (v float64, err error) {
	text, err := page()
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^container_cpu_usage_seconds_total\{[^}]*name="` + name + `"[^}]*\} (\S+)`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no CPU time of %s", name)
	}
	_, err = fmt.Sscan(m[1], &v)
	return v, err
}

func commands(t *testing.T, bin, config string) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"ps"}, []string{"throttled", "nearlimit"}},
		{[]string{"top", "--once", "--sort", "memory"}, []string{"nearlimit", "of 64.0MiB"}},
		{[]string{"usage", "--since", "1h"}, []string{"throttled ", "CPU-S"}},
		{[]string{"advise"}, []string{"throttled", "stopped in", "killed for", "risk high"}},
	} {
		cmd := exec.Command(bin, append(c.args, "--config", config)...)
		cmd.Env = append(os.Environ(), "COLUMNS=80")
		out, err := cmd.CombinedOutput()
		t.Logf("fairlead %s\n%s", strings.Join(c.args, " "), out)
		if err != nil {
			t.Errorf("%v: %v", c.args, err)
		}
		for _, want := range c.want {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%v: no %q", c.args, want)
			}
		}
		for line := range bytes.Lines(out) {
			if n := len([]rune(strings.TrimRight(string(line), "\n"))); n > 80 {
				t.Errorf("%v: a line of %d columns: %s", c.args, n, line)
			}
		}
	}
}

type row struct {
	Name       string
	CPUSeconds float64 `json:"cpu_seconds"`
	Missing    []string
}

func usage(t *testing.T, bin, config, name string) row {
	t.Helper()
	out, err := exec.Command(bin, "usage", "--since", "1h", "--json", "--config", config).Output()
	var report struct{ Containers []row }
	if err == nil {
		err = json.Unmarshal(out, &report)
	}
	if err != nil {
		return row{}
	}
	for _, r := range report.Containers {
		if r.Name == name {
			return r
		}
	}
	return row{}
}

// start runs a program until the test ends; what it says is shown when the test has failed.
func start(t *testing.T, dir, name string, argv ...string) *exec.Cmd {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	root := t
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait() // how it ended does not matter here
			timer.Stop()
		}
		_ = log.Close()
		if root.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s said:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return cmd
}

func await(t *testing.T, what string, bound time.Duration, ready func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(bound); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err = ready(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, bound, err)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
