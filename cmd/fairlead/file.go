package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/fairlead-dev/fairlead/agent/api"
	"github.com/fairlead-dev/fairlead/agent/config"
	"github.com/fairlead-dev/fairlead/agent/container"
	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/agent/reap"
	"github.com/fairlead-dev/fairlead/logship"
	"github.com/fairlead-dev/fairlead/metrics"
	"github.com/fairlead-dev/fairlead/overlay"
	"github.com/fairlead-dev/fairlead/volumes"
)

const defaultConfigFile = "/etc/fairlead/fairlead.yaml"

// File is the whole configuration: what is common, and one section per part.
type File struct {
	Node      Node   `yaml:"node" doc:"this host among others"`
	RunDir    string `yaml:"run_dir" doc:"sockets: agent.sock for operators, cni.sock for the CNI plugin"`
	StateDir  string `yaml:"state_dir" doc:"what must outlive the agent, one sub-directory per part"`
	Listen    string `yaml:"listen" doc:"address:port of /metrics and /healthz; :9478 opens it to the network"`
	WebConfig string `yaml:"web_config_file" doc:"TLS and passwords for listen, as in Prometheus' exporters (docs/usage.md); certificates and passwords are read again when they change"`
	Log       Log    `yaml:"log" doc:"the agent's own log, on standard error"`
	Host      Host   `yaml:"host" doc:"where the host's proc and sysfs are mounted; in a pod, elsewhere"`

	Runtimes container.Config `yaml:"runtimes" doc:"where container runtimes are looked for; usual ones are found without a word"`

	Overlay overlay.Config `yaml:"overlay" doc:"addresses for containers and paths between hosts"`
	Metrics metrics.Config `yaml:"metrics" doc:"what is read from cgroups at each scrape"`
	Logship logship.Config `yaml:"logship" doc:"which logs are followed and where their lines go"`
	Volumes volumes.Config `yaml:"volumes" doc:"directories that are volumes, beside those of containers, and where backups go"`
	Orphans reap.Config    `yaml:"orphans" doc:"what dead containers left behind"`
}

// Node is this host among others.
type Node struct {
	Name    string     `yaml:"name" doc:"its stable identity; default: the host name"`
	Address netip.Addr `yaml:"address" doc:"on the underlay; default: that of the default route's device"`
}

// Log is the agent's own log.
type Log struct {
	Level  string `yaml:"level" doc:"debug, info, warn or error; reloaded on SIGHUP"`
	Format string `yaml:"format" doc:"text or json"`
}

// Host is where the host's kernel file systems are.
type Host struct {
	Proc string `yaml:"proc" doc:"default /proc"`
	Sys  string `yaml:"sys" doc:"default /sys"`
}

// defaultFile is what an agent without a file does: a working single host.
func defaultFile() File {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return File{
		Node:     Node{Name: name},
		RunDir:   "/run/fairlead",
		StateDir: "/var/lib/fairlead",
		Listen:   "127.0.0.1:9478",
		Log:      Log{Level: "info", Format: "text"},
		Host:     Host{Proc: "/proc", Sys: "/sys"},
		Runtimes: container.DefaultConfig(),
		Overlay:  overlay.DefaultConfig(),
		Metrics:  metrics.DefaultConfig(),
		Logship:  logship.DefaultConfig(),
		Volumes:  volumes.DefaultConfig(),
		Orphans:  reap.DefaultConfig(),
	}
}

// Validate names every problem with its key.
func (f File) Validate() error {
	var problems []error
	problem := func(key, format string, args ...any) {
		problems = append(problems, config.Problemf(key, format, args...))
	}
	if f.Node.Name == "" {
		problem("node.name", "expected a name for this host")
	}
	if a := f.Node.Address; a.IsValid() && (a.IsUnspecified() || a.IsMulticast()) {
		problem("node.address", "%s is not an address by which other hosts reach this one", a)
	}
	for key, dir := range map[string]string{"run_dir": f.RunDir, "state_dir": f.StateDir, "host.proc": f.Host.Proc, "host.sys": f.Host.Sys} {
		if !filepath.IsAbs(dir) {
			problem(key, "expected an absolute path, found %q", dir)
		}
	}
	// sockaddr_un holds 107 bytes and a zero (unix(7)).
	if n := len(f.agentSocket()); n > 107 {
		problem("run_dir", "a socket below it would have a path of %d bytes, 107 are possible", n)
	}
	if _, _, err := net.SplitHostPort(f.Listen); err != nil {
		problem("listen", "expected address:port such as 127.0.0.1:9478, found %q", f.Listen)
	}
	if err := api.CheckWebConfig(f.WebConfig); err != nil {
		problem("web_config_file", "%v", err)
	}
	if _, err := logLevel(f.Log.Level); err != nil {
		problem("log.level", "%v", err)
	}
	if f.Log.Format != "text" && f.Log.Format != "json" {
		problem("log.format", "expected text or json, found %q", f.Log.Format)
	}
	problems = append(problems, config.Under("runtimes", f.Runtimes.Validate()), f.Overlay.Validate(), f.Metrics.Validate(), f.Logship.Validate(), f.Volumes.Validate(), f.Orphans.Validate())
	return errors.Join(problems...)
}

func (f File) agentSocket() string { return filepath.Join(f.RunDir, "agent.sock") }
func (f File) cniSocket() string   { return filepath.Join(f.RunDir, "cni.sock") }
func (f File) root() host.Root     { return host.Root{Proc: f.Host.Proc, Sys: f.Host.Sys} }

// loadFile reads and validates the configuration. A file that is absent gives the defaults, unless it must be there.
func loadFile(path string, mustExist bool) (File, *config.File, error) {
	f := defaultFile()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !mustExist {
		return f, &config.File{}, nil
	}
	if err != nil {
		return f, nil, fmt.Errorf("read configuration: %w", err)
	}
	read, undecoded := config.Decode(path, text, &f)
	// What could not be decoded kept its default, so the rest can be judged all the same: all problems at once.
	return f, read, together(undecoded, read.Locate(f.Validate()))
}

// together joins problems of both kinds in the order of their lines.
func together(errs ...error) error {
	var all config.Problems
	for _, err := range errs {
		if err == nil {
			continue
		}
		var some config.Problems
		if !errors.As(err, &some) {
			return errors.Join(errs...)
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b config.Problem) int { return cmp.Compare(a.Line, b.Line) })
	return all
}
