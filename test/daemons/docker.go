package daemons

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// APIDaemon is a running Docker Engine or Podman API service.
type APIDaemon struct {
	*Process
	Socket string   // where its API answers, as the daemon sees it
	client []string // the command line that speaks to it: docker -H ..., podman --root ...

	shims string // the address its containerd's shims know; empty for Podman
}

// Dockerd starts Docker Engine, with a containerd of its own or that of opts.Containerd, and returns when it answers.
// It makes no bridge and no firewall rules: containers use the network modes none and host.
func Dockerd(ctx context.Context, opts Options) (*APIDaemon, error) {
	run := filepath.Join(opts.Dir, "exec")
	d := &APIDaemon{
		Socket: filepath.Join(opts.Dir, "docker.sock"),
		shims:  or(opts.Containerd, filepath.Join(run, "containerd/containerd.sock")),
	}
	d.client = []string{"docker", "-H", "unix://" + d.Socket}
	argv := []string{
		"dockerd", "-H", "unix://" + d.Socket, "--data-root", filepath.Join(opts.Dir, "data"), "--exec-root", run,
		"-p", filepath.Join(opts.Dir, "docker.pid"), "--config-file", filepath.Join(opts.Dir, "daemon.json"),
		"--bridge=none", "--iptables=false", "--ip6tables=false",
		// Under systemd with cgroup v2 it would be systemd, which takes no path as a parent.
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--cgroup-parent", opts.cgroup(),
	}
	// An own, empty configuration: the machine's /etc/docker/daemon.json is for the machine's own Docker.
	if err := os.WriteFile(filepath.Join(opts.Dir, "daemon.json"), []byte("{}\n"), 0o644); err != nil {
		return nil, fmt.Errorf("configure dockerd: %w", err)
	}
	if opts.Containerd != "" {
		argv = append(argv, "--containerd", opts.Containerd)
	}
	return d, d.begin(ctx, opts, "dockerd", argv)
}

// PodmanAPI starts Podman's service of the Docker-compatible API and returns when it answers. Its containers use the
// network modes none and host.
func PodmanAPI(ctx context.Context, opts Options) (*APIDaemon, error) {
	d := &APIDaemon{Socket: filepath.Join(opts.Dir, "podman.sock")}
	conf := os.Getenv("CONTAINERS_CONF")
	if conf == "" {
		// Its default where systemd is would be journald, which is hidden from it.
		conf = filepath.Join(opts.Dir, "containers.conf")
		if err := os.WriteFile(conf, []byte("[containers]\nlog_driver = \"k8s-file\"\n"), 0o644); err != nil {
			return nil, fmt.Errorf("configure podman: %w", err)
		}
	}
	d.client = []string{
		"env", "CONTAINERS_CONF=" + conf, "podman", "--root", filepath.Join(opts.Dir, "root"), "--runroot", filepath.Join(opts.Dir, "run/containers"),
		"--network-config-dir", filepath.Join(opts.Dir, "cni"), "--events-backend", "file",
		// crun refuses a hybrid cgroup layout; runc takes every layout.
		"--cgroup-manager", "cgroupfs", "--runtime", "runc",
	}
	argv := append(d.client[:len(d.client):len(d.client)], "system", "service", "--time", "0", "unix://"+d.Socket)
	return d, d.begin(ctx, opts, "podman", argv)
}

func (d *APIDaemon) begin(ctx context.Context, opts Options, name string, argv []string) (err error) {
	if d.Process, err = start(opts, name, argv...); err != nil {
		return err
	}
	if err := d.await(ctx, d.answers); err != nil {
		return errors.Join(err, d.Stop(ctx))
	}
	return nil
}

// Start brings the daemon back after Kill, in the same place.
func (d *APIDaemon) Start(ctx context.Context) error {
	// Docker's own containerd dies with a killed dockerd. Where process 1 is no init that reaps, it stays a zombie, and
	// dockerd waits in vain for the process that its pid file names.
	if err := os.Remove(filepath.Join(d.opts.Dir, "exec/containerd/containerd.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.launch(); err != nil {
		return fmt.Errorf("start %s again: %w", d.argv[0], err)
	}
	return d.await(ctx, d.answers)
}

func (d *APIDaemon) answers(ctx context.Context) error {
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.Seen(d.Socket))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ping: %s", resp.Status)
	}
	return nil
}

// Client runs the daemon's command line client and gives its output without white space around it.
func (d *APIDaemon) Client(ctx context.Context, args ...string) (string, error) {
	out, err := d.Run(ctx, append(d.client[:len(d.client):len(d.client)], args...)...)
	return strings.TrimSpace(out), err
}

// Stop removes all containers, ends the daemon, and clears what is left of shims, containers and cgroups. It may be
// called twice, and after Kill.
func (d *APIDaemon) Stop(ctx context.Context) error {
	if d.Process == nil {
		return nil
	}
	if d.Running() && d.mnt != nil {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if ids, err := d.Client(ctx, "ps", "-aq"); err == nil && ids != "" {
			// They may be removed by others just now; clear looks at what really is left.
			_, _ = d.Client(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
	}
	return errors.Join(d.end(ctx), d.clear(ctx, d.shims, d.opts.Dir))
}
