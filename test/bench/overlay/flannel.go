package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// etcd is flannel's store, on a host.
type etcd struct {
	*exec.Cmd
	url  string
	http http.Client
}

// startEtcd starts one that listens on address, and writes the network's configuration.
func startEtcd(ctx context.Context, h *namespace, dir, address, network string) (*etcd, error) {
	e := &etcd{url: "http://" + address + ":2379"}
	e.Cmd = h.command(ctx, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--logger", "zap", "--log-level", "error",
		"--listen-client-urls", e.url, "--advertise-client-urls", e.url, "--listen-peer-urls", "http://127.0.0.1:2380")
	e.Stderr = os.Stderr
	if err := e.Start(); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	e.http.Transport = &http.Transport{DialContext: func(ctx context.Context, proto, addr string) (c net.Conn, err error) {
		err = h.within(func() error {
			c, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, proto, addr)
			return err
		})
		return c, err
	}}
	config := map[string]string{"/coreos.com/network/config": fmt.Sprintf(`{"Network":%q,"SubnetLen":24,"Backend":{"Type":"vxlan"}}`, network)}
	return e, until(ctx, "etcd", 30*time.Second, func() (bool, error) {
		err := e.put(ctx, config)
		return err == nil, err
	})
}

func (e *etcd) stop() {
	if e != nil && e.Process != nil {
		e.http.CloseIdleConnections()
		_ = e.Process.Signal(syscall.SIGTERM)
		_ = e.Wait()
	}
}

// put writes keys by etcd's JSON gateway, as many at once as a transaction may have.
func (e *etcd) put(ctx context.Context, all map[string]string) error {
	type put struct {
		Put struct {
			Key   []byte `json:"key"`
			Value []byte `json:"value"`
		} `json:"request_put"`
	}
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(all)), 128) {
		var txn struct {
			Success []put `json:"success"`
		}
		for _, k := range keys {
			var p put
			p.Put.Key, p.Put.Value = []byte(k), []byte(all[k])
			txn.Success = append(txn.Success, p)
		}
		body, err := json.Marshal(txn)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v3/kv/txn", bytes.NewReader(body))
		if err != nil {
			return err
		}
		res, err := e.http.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("etcd: %s: %s: %w", res.Status, text, err)
		}
	}
	return nil
}

// flannel is flanneld's VXLAN backend on a host.
type flannel struct {
	*exec.Cmd
	subnet string // that it leased, as the file says it: 10.244.7.1/24
	mtu    string
	log    string
}

// served tells how many hosts it has written, and how long it took from the first to the last, by its log: what it writes
// again without a change the kernel does not tell.
func (f *flannel) served() (hosts int, took time.Duration, err error) {
	text, err := os.ReadFile(f.log)
	if err != nil {
		return 0, 0, err
	}
	var first, last time.Time
	for l := range strings.Lines(string(text)) {
		words := strings.Fields(l)
		if !strings.Contains(l, "Received Subnet Event") || len(words) < 2 {
			continue
		}
		if last, err = time.Parse("15:04:05.000000", words[1]); err != nil {
			return 0, 0, err
		}
		if hosts++; hosts == 1 {
			first = last
		}
	}
	return hosts, last.Sub(first), nil
}

// startFlannel starts one and waits for its subnet file; of what stood before it knows nothing but the kernel.
func startFlannel(ctx context.Context, bin string, h *namespace, dir string, e *etcd) (*flannel, error) {
	file := filepath.Join(dir, "subnet."+h.name)
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "flannel."+h.name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	f := &flannel{log: log.Name(), Cmd: h.command(ctx, bin, "-etcd", e.url, "-iface", under, "-subnet-file", file)}
	f.Stdout, f.Stderr = log, log
	if err := f.Start(); err != nil {
		return nil, err
	}
	err = until(ctx, "flannel on "+h.name, 30*time.Second, func() (bool, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			said, _ := os.ReadFile(log.Name())
			return false, fmt.Errorf("%w: %s", err, said)
		}
		for l := range strings.Lines(string(text)) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(l), "="); key {
			case "FLANNEL_SUBNET":
				f.subnet = value
			case "FLANNEL_MTU":
				f.mtu = value
			}
		}
		return f.subnet != "" && f.mtu != "", nil
	})
	return f, err
}

// stop ends it as a crash does: it can wait for its watches for minutes.
func (f *flannel) stop() {
	if f != nil && f.Process != nil {
		_ = f.Process.Kill()
		_ = f.Wait()
	}
}

// attach makes a container by the bridge plugin, configured as flannel's CNI plugin does it.
func (f *flannel) attach(ctx context.Context, reference string, h *namespace, dir, network, name string) (*namespace, string, error) {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"cbr0","plugins":[{"type":"bridge","bridge":"cni0","isDefaultGateway":true,"hairpinMode":true,
		"ipMasq":false,"mtu":%s,"ipam":{"type":"host-local","dataDir":"%s/host-local-%s","subnet":%q,"routes":[{"dst":%q}]}}]}`,
		f.mtu, dir, h.name, strings.Replace(f.subnet, ".1/", ".0/", 1), network)
	return attach(ctx, h, reference, dir, conf, name)
}
