package cni

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is a network namespace that plays a host: an uplink with 192.0.2.11/24 and a default route, and nothing else.
type Host struct {
	Dir string // for sockets and files of the plugin; its path is short
	ns  *os.File
}

// Uplink is the host's address.
const Uplink = "192.0.2.11"

func newHost() (*Host, error) {
	dir, err := os.MkdirTemp("", "cni-")
	if err != nil {
		return nil, err
	}
	h := &Host{Dir: dir}
	if h.ns, err = newNamespace(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	_, err = h.Sh(`ip link set lo up && ip link add up0 type veth peer name far0 && ip addr add ` + Uplink + `/24 dev up0 &&
		ip link set up0 up && ip link set far0 up && ip route add default via 192.0.2.1`)
	if err == nil {
		// The kernel takes a moment to trust its own link-local addresses; then nothing moves any more.
		_, err = h.Sh("for i in $(seq 300); do [ -z \"$(ip -6 -o addr show tentative)\" ] && exit 0; sleep 0.01; done; exit 1")
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *Host) close() error {
	return errors.Join(h.ns.Close(), os.RemoveAll(h.Dir))
}

// NetNS is the path of the host's network namespace, for nsenter.
func (h *Host) NetNS() string { return path(h.ns) }

// Sh runs a shell script on the host and gives what it printed.
func (h *Host) Sh(script string) (string, error) { return shell(h.ns, script) }

// Left is everything that a plugin could leave on the host, one thing a line, sorted. Counters and numbers that the
// kernel gives are left out.
func (h *Host) Left() (string, error) {
	text, err := h.Sh(`ip -o link | sed -E 's/^[0-9]+: ([^@:]+).*/link \1/'
		ip -o addr | sed -E 's/^[0-9]+: +([^ ]+) +(inet6?) ([^ ]+).*/address \1 \3/' | grep -v ' fe80:'
		ip route show table all | sed 's/ linkdown//;s/^/route /' | grep -v -e 'fe80::' -e 'ff00::' -e 'multicast'
		ip -6 route show table all | sed -E 's/ (linkdown|metric [0-9]+|pref medium|error [0-9-]+)//g;s/^/route6 /' | grep -v -e 'fe80:' -e 'ff00::'
		ip rule | sed 's/^/rule /'
		ip neigh show nud permanent | sed 's/^/neighbour /'
		nft list ruleset | tr '\n' '\r' | sed -E 's/,\r[\t ]+/, /g' | tr '\r' '\n' | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/g; s/ expires [0-9a-z]+//g; s/^[\t ]*/nft /'
		for l in iptables-legacy-save ip6tables-legacy-save; do $l 2>/dev/null | sed -n 's/^-A/legacy -A/p'; done; true`)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// Box is a container's network namespace.
type Box struct {
	ID   string
	Path string
	ns   *os.File
}

// NewBox makes the namespace of a container.
func NewBox(id string) (*Box, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	b := &Box{ID: id, Path: path(ns), ns: ns}
	if _, err := b.Sh("ip link set lo up"); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return b, nil
}

// Sh runs a shell script in the container's network.
func (b *Box) Sh(script string) (string, error) { return shell(b.ns, script) }

// End destroys the namespace, as when the container's last process ends. It may be called twice.
func (b *Box) End() {
	_ = b.ns.Close() // there is nothing to flush
}

func path(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// newNamespace makes a namespace on a thread that is not used again.
func newNamespace() (f *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return f, err
}

// within runs f on a thread in a namespace; child processes that f starts are in there.
func within(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which ends with it because it stays locked.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func shell(ns *os.File, script string) (string, error) {
	var out []byte
	err := within(ns, func() (err error) {
		out, err = exec.Command("sh", "-c", script).CombinedOutput()
		return err
	})
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", script, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Files lists the files below a directory by their path and content: what IPAM plugins keep.
func Files(dir string, ignore ...string) (string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() || slices.ContainsFunc(ignore, func(i string) bool { return strings.HasPrefix(e.Name(), i) }) {
			return err
		}
		out = append(out, strings.TrimPrefix(path, dir))
		return nil
	})
	return strings.Join(out, "\n"), err
}
