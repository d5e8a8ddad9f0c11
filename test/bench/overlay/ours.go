package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// agent is the product's daemon on a host.
type agent struct {
	*exec.Cmd
	host *namespace
	dir  string
	mu   sync.Mutex
	log  []line
	done chan struct{} // closed when its log has ended
}

// line is what is used of one of the agent's.
type line struct {
	Message string        `json:"msg"`
	Level   string        `json:"level"`
	Steps   int           `json:"steps"`
	Peers   int           `json:"peers"`
	Took    time.Duration `json:"took"`
	text    string
}

// startAgent starts one with what config says, in dir, and returns when it serves.
func startAgent(ctx context.Context, bin string, h *namespace, dir, config string) (*agent, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &agent{host: h, dir: dir, done: make(chan struct{})}
	if err := a.configure(config); err != nil {
		return nil, err
	}
	a.Cmd = h.command(ctx, filepath.Join(bin, "fairlead"), "agent", "--config", a.file())
	out, err := a.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := a.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(a.done)
		for in := bufio.NewScanner(out); in.Scan(); {
			l := line{text: in.Text()}
			if json.Unmarshal(in.Bytes(), &l) != nil {
				l.Level = "ERROR" // a panic
			}
			if l.Level == "ERROR" {
				fmt.Fprintln(os.Stderr, h.name+":", l.text)
			}
			a.mu.Lock()
			a.log = append(a.log, l)
			a.mu.Unlock()
		}
	}()
	if err := a.await(ctx, "overlay is up", 0); err != nil {
		return nil, err
	}
	return a, until(ctx, "cni.sock", 10*time.Second, func() (bool, error) {
		_, err := os.Stat(filepath.Join(dir, "run/cni.sock"))
		return err == nil, err
	})
}

func (a *agent) file() string { return filepath.Join(a.dir, "fairlead.yaml") }

// configure writes the file: config, and where everything is.
func (a *agent) configure(config string) error {
	head := fmt.Sprintf("run_dir: %[1]s/run\nstate_dir: %[1]s/state\nlisten: 127.0.0.1:0\nlog: {format: json}\nruntimes: {run: %[1]s}\n", a.dir)
	return os.WriteFile(a.file(), []byte(head+config), 0o600)
}

// lines gives what it has logged with a message.
func (a *agent) lines(message string) (out []line) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.log {
		if l.Message == message {
			out = append(out, l)
		}
	}
	return out
}

// await waits until it has logged a message more than so many times.
func (a *agent) await(ctx context.Context, message string, more int) error {
	return until(ctx, a.host.name+": "+message, time.Minute, func() (bool, error) {
		if len(a.lines(message)) > more {
			return true, nil
		}
		select {
		case <-a.done:
			return false, fmt.Errorf("the agent of %s has ended", a.host.name)
		default:
			return false, nil
		}
	})
}

// stop ends it as an operator does.
func (a *agent) stop() error {
	if a == nil || a.Process == nil {
		return nil
	}
	_ = a.Process.Signal(syscall.SIGTERM)
	<-a.done
	return a.Wait()
}

// rss is its resident memory in MiB.
func (a *agent) rss() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest + " x")[0])
	return float64(kb) / 1024, err
}

// cpu is the time that its threads have used.
func (a *agent) cpu() (total time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", a.Process.Pid))
	for _, t := range tasks {
		if b, err := os.ReadFile(t); err == nil {
			n, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			total += time.Duration(n)
		}
	}
	return total
}

// attach makes a container on the agent's host by the real plugin and gives its address.
func (a *agent) attach(ctx context.Context, bin, network, name string) (*namespace, string, error) {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"plugins":[{"type":"fairlead-cni","socket":"%s/run/cni.sock"}]}`, network, a.dir)
	return attach(ctx, a.host, bin, a.dir, conf, name)
}

// attach makes a container with an address from a chain of plugins, which run on the host.
func attach(ctx context.Context, h *namespace, bin, dir, conf, name string) (*namespace, string, error) {
	list, err := libcni.NetworkConfFromBytes([]byte(conf))
	if err != nil {
		return nil, "", err
	}
	n, err := newNamespace(ctx, name)
	if err != nil {
		return nil, "", err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(dir, "cache"), nil)
	addr := ""
	err = h.within(func() error {
		res, err := cni.AddNetworkList(ctx, list, &libcni.RuntimeConf{ContainerID: name, NetNS: n.path(), IfName: "eth0"})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		r, err := types100.NewResultFromResult(res)
		if err != nil {
			return err
		}
		addr = r.IPs[0].Address.IP.String()
		return nil
	})
	return n, addr, err
}
