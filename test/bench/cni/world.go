package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// world is this namespace with one fairlead agent in it.
type world struct {
	o      options
	dir    string
	agent  *exec.Cmd
	before string // links and routes
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
	return w.plugin("fairlead", w.o.bin, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"fairlead-cni","socket":"%s/run/cni.sock"}]}`, w.dir))
}

func (w *world) reference() (plugin, error) {
	return w.plugin("reference", w.o.reference, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"reference","plugins":[{"type":"bridge","bridge":"cni-bench0","isGateway":true,"ipMasq":true,
		"ipam":{"type":"host-local","dataDir":"%s/host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, w.dir))
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
	id   string
	file *os.File
}

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
	return &box{id, m.f}, m.err
}

func (b *box) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: b.id, NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.file.Fd()), IfName: "eth0"}
}

// add attaches and gives the address and the time it took.
func (p plugin) add(ctx context.Context, b *box) (string, time.Duration, error) {
	began := time.Now()
	res, err := p.cni.AddNetworkList(ctx, p.conf, b.runtimeConf())
	took := time.Since(began)
	if err != nil {
		return "", took, fmt.Errorf("%s: ADD %s: %w", p.name, b.id, err)
	}
	r, err := types100.NewResultFromResult(res)
	if err != nil {
		return "", took, err
	}
	return r.IPs[0].Address.IP.String(), took, nil
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
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", w.agent.Process.Pid))
	if err != nil {
		return 0, err
	}
	// schedstat of the main thread only: sum over the threads.
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", w.agent.Process.Pid))
	if err != nil {
		return 0, err
	}
	var agent int64
	for _, t := range tasks {
		if b, err := os.ReadFile(t); err == nil {
			text = b
			n, _ := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
			agent += n
		}
	}
	return time.Duration(agent) + time.Duration(children.Utime.Nano()+children.Stime.Nano()), nil
}
