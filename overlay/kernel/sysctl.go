package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/agent/host"
	"github.com/fairlead-dev/fairlead/overlay/plan"
)

// Sysctls reads the host-wide settings that the overlay cares for. One that this kernel lacks (no IPv6) is left out.
func (c *Conn) Sysctls() (map[string]string, error) {
	out := map[string]string{}
	for _, key := range plan.Sysctls() {
		b, err := os.ReadFile(c.sysctlPath(strings.Split(key, ".")...))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl %s: %w", key, err)
		}
		out[key] = strings.TrimSpace(string(b))
	}
	return out, nil
}

func (c *Conn) sysctlPath(parts ...string) string {
	return filepath.Join(c.root.Proc, "sys", filepath.Join(parts...))
}

func (c *Conn) setSysctl(key, value string) error {
	if key == "net.ipv6.conf.all.forwarding" && value == "1" {
		if err := c.keepAdvertisements(); err != nil {
			return err
		}
	}
	return os.WriteFile(c.sysctlPath(strings.Split(key, ".")...), []byte(value), 0o644)
}

// keepAdvertisements keeps the host's own IPv6 alive: once a host forwards, an interface takes router advertisements
// only where accept_ra is 2 (ip-sysctl.rst).
func (c *Conn) keepAdvertisements() error {
	files, err := filepath.Glob(c.sysctlPath("net/ipv6/conf/*/accept_ra"))
	if err != nil {
		return err
	}
	for _, f := range files {
		dev := filepath.Base(filepath.Dir(f))
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) || dev == "all" || strings.HasPrefix(dev, plan.LinkPrefix) || strings.TrimSpace(string(b)) != "1" {
			continue
		}
		if err := os.WriteFile(f, []byte("2"), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// setLinkSysctl writes a setting of one device. On a kernel without IPv6 there is none to set for it.
func (c *Conn) setLinkSysctl(s plan.SetLinkSysctl) error {
	c.rtnl.Lock()
	err := os.WriteFile(c.sysctlPath("net", s.Family, "conf", s.Dev, s.Key), []byte(s.Value), 0o644)
	c.rtnl.Unlock()
	if s.Family == "ipv6" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// enableIPv6 writes a container's own setting: /proc/sys/net shows the namespace of the thread that opens it.
func (c *Conn) enableIPv6(ns plan.Namespace, dev string) error {
	err := host.OnThread(func() error {
		if err := unix.Setns(ns.FD, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return os.WriteFile(c.sysctlPath("net/ipv6/conf", dev, "disable_ipv6"), []byte("0"), 0o644)
	})
	if err != nil {
		return fmt.Errorf("turn IPv6 on for %s in %s: %w", dev, ns.Path, err)
	}
	return nil
}
