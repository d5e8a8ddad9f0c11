package daemons

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// EtcdDaemon is a running etcd with one member.
type EtcdDaemon struct {
	*Process
	URL string // for clients

	data string
}

// Etcd starts etcd, which listens on opts.Address, and returns when it answers. more are further flags; with those for
// TLS its URL begins with https.
func Etcd(ctx context.Context, opts Options, more ...string) (*EtcdDaemon, error) {
	d := &EtcdDaemon{URL: "http://" + opts.Address, data: filepath.Join(opts.Dir, "data")}
	if len(more) > 0 {
		d.URL = "https://" + opts.Address
	}
	var err error
	// Nobody calls a lone member, so it is no matter where it says that it listens for others.
	argv := append([]string{"etcd", "--data-dir", d.data, "--logger", "zap", "--listen-client-urls", d.URL, "--advertise-client-urls", d.URL,
		"--listen-peer-urls", "http://127.0.0.1:0", "--initial-advertise-peer-urls", etcdPeer, "--initial-cluster", "default=" + etcdPeer}, more...)
	if d.Process, err = start(opts, "etcd", argv...); err != nil {
		return nil, err
	}
	if err := d.await(ctx, d.answers); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

const etcdPeer = "http://127.0.0.1:2380"

func (d *EtcdDaemon) answers(context.Context) error { return d.listensOn(d.opts.Address) }

// Start brings etcd back after Stop or Kill, with its data.
func (d *EtcdDaemon) Start(ctx context.Context) error {
	if err := d.launch(); err != nil {
		return fmt.Errorf("start etcd again: %w", err)
	}
	return d.await(ctx, d.answers)
}

// Save writes a snapshot to path.
func (d *EtcdDaemon) Save(ctx context.Context, path string) error {
	_, err := d.ctl(ctx, "--endpoints", d.URL, "snapshot", "save", path)
	return err
}

// Restore replaces the data of a stopped etcd by a snapshot. Another token makes another cluster id.
func (d *EtcdDaemon) Restore(ctx context.Context, path, token string) error {
	if err := os.RemoveAll(d.data); err != nil {
		return err
	}
	_, err := d.ctl(ctx, "snapshot", "restore", path, "--data-dir", d.data, "--initial-cluster-token", token,
		"--initial-advertise-peer-urls", etcdPeer, "--initial-cluster", "default="+etcdPeer)
	return err
}

func (d *EtcdDaemon) ctl(ctx context.Context, args ...string) (string, error) {
	return d.Run(ctx, append([]string{"env", "ETCDCTL_API=3", "etcdctl"}, args...)...)
}
