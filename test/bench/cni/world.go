package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// world is this namespace with one fairlead agent in it.
type world struct {
	o       options
	dir     string
	agent   *exec.Cmd
	sibling *box    // a container that stays
	idle    float64 // MiB that the agent has before the first container
}

// plugin is one way to attach a container.
type plugin struct {
	name string
	cni  *libcni.CNIConfig
	conf *libcni.NetworkConfigList
}

func newWorld(ctx context.Context, o options) (_ *world, err error) {
	dir, err := os.MkdirTemp("", "fairlead-bench-cni-")
	if err != nil {
		return nil, err
	}
	w := &world{o: o, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if _, err := sh("ip link set lo up && ip link add under type veth peer name far && ip addr add 192.0.2.11/24 dev under && ip link set under up && ip link set far up"); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("run_dir: %s/run\nstate_dir: %s/state\nlisten: 127.0.0.1:0\nlog: {level: warn}\nruntimes: {run: %s}\noverlay: {networks: [{name: bench, cidr: 10.42.0.0/16, vni: 42}]}\n", dir, dir, dir)
	file := filepath.Join(dir, "fairlead.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	w.agent = exec.CommandContext(ctx, filepath.Join(o.bin, "fairlead"), "agent", "--config", file)
	w.agent.Cancel = func() error { return w.agent.Process.Signal(unix.SIGTERM) }
	w.agent.Stderr = os.Stderr
	if err := w.agent.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if _, err = os.Stat(filepath.Join(dir, "run/cni.sock")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("the agent did not come up: %w", err)
	}
	if w.idle, err = w.rss(); err != nil {
		return nil, err
	}
	if w.sibling, err = newBox("sibling"); err != nil {
		return nil, err
	}
	p, err := w.ours()
	if err == nil {
		_, _, err = p.add(ctx, w.sibling)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (w *world) close() error {
	var err error
	if w.agent != nil && w.agent.Process != nil {
		_ = w.agent.Process.Signal(unix.SIGTERM)
		err = w.agent.Wait()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func (w *world) ours() (plugin, error) {
	return w.plugin("fairlead", w.o.bin, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"fairlead-cni","socket":"%s/run/cni.sock","capabilities":{"portMappings":true}}]}`, w.dir))
}

// reference is the chain with one of its two backends, "iptables" or "nftables".
func (w *world) reference(backend string, net int) (plugin, error) {
	return w.plugin(backend, w.o.reference, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"reference-%[2]s","plugins":[
		{"type":"bridge","bridge":"cni-bench%[3]d","isGateway":true,"ipMasq":true,"ipMasqBackend":"%[2]s",
		 "ipam":{"type":"host-local","dataDir":"%[1]s/host-local","ranges":[[{"subnet":"10.%[3]d.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
		{"type":"portmap","backend":"%[2]s","capabilities":{"portMappings":true}}]}`, w.dir, backend, net))
}

func (w *world) plugin(name, bin, conf string) (plugin, error) {
	list, err := libcni.NetworkConfFromBytes([]byte(conf))
	if err != nil {
		return plugin{}, err
	}
	return plugin{name, libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(w.dir, "cache-"+name), nil), list}, nil
}

// box is a container's network namespace.
type box struct {
	id       string
	file     *os.File
	port     int    // on the host
	protocol string // of the port; "" is tcp
	socket   int    // that listens, or 0
}

var ports atomic.Int32

// newBox makes a namespace on a thread that is not used again.
func newBox(id string) (*box, error) {
	type made struct {
		f   *os.File
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		var f *os.File
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- made{f, err}
	}()
	m := <-done
	return &box{id: id, file: m.f, port: 20000 + int(ports.Add(1))%10000}, m.err
}

func (b *box) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: b.id, NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd()), IfName: "eth0",
		CapabilityArgs: map[string]any{"portMappings": []map[string]any{{"hostPort": b.port, "containerPort": 80, "protocol": cmp.Or(b.protocol, "tcp")}}}}
}

// within runs f on a thread in the namespace, which ends with it.
func (b *box) within(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(b.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// add attaches and tells the time it took.
func (p plugin) add(ctx context.Context, b *box) (attached, time.Duration, error) {
	began := time.Now()
	res, err := p.cni.AddNetworkList(ctx, p.conf, b.runtimeConf())
	took := time.Since(began)
	if err != nil {
		return attached{}, took, fmt.Errorf("%s: ADD %s: %w", p.name, b.id, err)
	}
	r, err := types100.NewResultFromResult(res)
	if err != nil {
		return attached{}, took, err
	}
	out := attached{addr: [4]byte(r.IPs[0].Address.IP.To4())}
	for _, i := range r.Interfaces {
		if i.Sandbox == "" {
			out.link = i.Name // the reference's first is its bridge
		}
	}
	return out, took, nil
}

// attached is what a result says.
type attached struct {
	addr [4]byte
	link string // on the host
}

func (p plugin) del(ctx context.Context, b *box) (time.Duration, error) {
	began := time.Now()
	err := p.cni.DelNetworkList(ctx, p.conf, b.runtimeConf())
	if err != nil {
		err = fmt.Errorf("%s: DEL %s: %w", p.name, b.id, err)
	}
	return time.Since(began), err
}

func sh(script string) (string, error) {
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", script, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// cpu is the time that the agent and all ended children have used.
func (w *world) cpu() (time.Duration, error) {
	var children unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &children); err != nil {
		return 0, err
	}
	// The process's own schedstat is that of its main thread only.
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", w.agent.Process.Pid))
	if err != nil {
		return 0, err
	}
	var agent int64
	for _, t := range tasks {
		if b, err := os.ReadFile(t); err == nil {
			n, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			agent += n
		}
	}
	return time.Duration(agent) + time.Duration(children.Utime.Nano()+children.Stime.Nano()), nil
}
